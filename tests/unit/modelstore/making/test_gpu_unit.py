"""Who may use a GPU's JPEG unit."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shoal.modelstore.making

GPU = Path(shoal.modelstore.making.__file__).with_name("gpu")
HOLDER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from hardware_unit import Unit
print(Unit("a", shared=False, folder=Path(sys.argv[2])).take(), flush=True)
input()
"""


@pytest.fixture
def unit(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(GPU))
    module = importlib.import_module("hardware_unit")
    monkeypatch.setattr(module, "monotonic", lambda: module.now)
    module.now = 0.0
    return module


def test_one_process_has_it_until_it_ends(unit: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(GPU), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "True\n"
        mine, other_gpu = (unit.Unit(gpu, shared=False, folder=tmp_path) for gpu in "ab")
        assert not mine.take()
        assert other_gpu.take()
        holder.kill()
    assert not mine.take(), "asked again at once"
    unit.now = unit.AGAIN_SECONDS
    assert mine.take()
    assert mine.take()


def test_under_mps_all_have_it(unit: Any, tmp_path: Path) -> None:
    assert unit.Unit("a", shared=False, folder=tmp_path).take()
    assert unit.Unit("a", shared=True, folder=tmp_path).take()
    assert unit.Unit("a", shared=True, folder=tmp_path).take()


def test_a_unit_that_does_not_answer_ends_the_process(unit: Any, tmp_path: Path) -> None:
    mine, codes = unit.Unit("a", shared=True, folder=tmp_path), []
    with mine.used():
        unit.now = unit.PATIENCE_SECONDS
        assert not mine.hangs()
        unit.now += 1
        assert mine.hangs()
        mine._watch(codes.append)
    assert codes == [1]
    assert not mine.hangs()
    with pytest.raises(RuntimeError), mine.used():
        raise RuntimeError
    unit.now *= 10
    assert not mine.hangs(), "it isn't used"
