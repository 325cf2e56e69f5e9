"""Who has a GPU's JPEG unit."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

import shoal.modelstore.making

GPU = Path(shoal.modelstore.making.__file__).with_name("gpu")
HOLDER = """
import sys
sys.path.insert(0, sys.argv[1])
from hardware_unit import Unit
print(Unit("a").take(), flush=True)
input()
"""


@pytest.fixture
def unit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.syspath_prepend(str(GPU))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    module = importlib.import_module("hardware_unit")
    monkeypatch.setattr(module, "monotonic", lambda: module.now)
    module.now = 0.0
    return module


def test_one_process_has_it_until_it_ends(unit: Any) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(GPU)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "True\n"
        mine, other_gpu = unit.Unit("a"), unit.Unit("b")
        assert not mine.take()
        assert other_gpu.take()
        holder.kill()
    assert not mine.take(), "asked again at once"
    unit.now = unit.AGAIN_SECONDS
    assert mine.take()
    assert mine.take()
