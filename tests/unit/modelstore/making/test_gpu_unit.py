"""Who may use a GPU's JPEG unit."""

from __future__ import annotations

import fcntl
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
with Unit("a", Path(sys.argv[2])).alone():
    print("mine", flush=True)
    input()
print("free", flush=True)
input()
"""


@pytest.fixture
def unit(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(GPU))
    module = importlib.import_module("hardware_unit")
    monkeypatch.setattr(module, "monotonic", lambda: module.now)
    module.now = 0.0
    return module


def is_taken(gpu: str, folder: Path) -> bool:
    with (folder / f"shoal-jpeg-unit-{gpu}.lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@pytest.mark.parametrize("ends", [False, True])
def test_one_process_uses_it_at_a_time(unit: Any, tmp_path: Path, ends: bool) -> None:
    mine, other_gpu = unit.Unit("a", tmp_path), unit.Unit("b", tmp_path)
    command = [sys.executable, "-c", HOLDER, str(GPU), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin
        assert holder.stdout
        assert holder.stdout.readline() == "mine\n"
        assert is_taken("a", tmp_path)
        with other_gpu.alone():
            assert is_taken("b", tmp_path)
        if ends:
            holder.kill()
            holder.wait()
        else:
            holder.stdin.write("\n")
            holder.stdin.flush()
            assert holder.stdout.readline() == "free\n"
        with mine.alone():
            assert is_taken("a", tmp_path)
        assert not is_taken("a", tmp_path)
        holder.kill()


def test_after_an_error_it_is_free(unit: Any, tmp_path: Path) -> None:
    mine = unit.Unit("a", tmp_path)
    with pytest.raises(RuntimeError), mine.alone():
        raise RuntimeError
    assert not is_taken("a", tmp_path)
    unit.now = 10 * unit.PATIENCE_SECONDS
    assert not mine.hangs()


def test_a_unit_that_does_not_answer_ends_the_process(unit: Any, tmp_path: Path) -> None:
    mine, codes = unit.Unit("a", tmp_path), []
    with mine.alone():
        unit.now = unit.PATIENCE_SECONDS
        assert not mine.hangs()
        unit.now += 1
        assert mine.hangs()
        mine._watch(codes.append)
    assert codes == [1]
    assert not mine.hangs()
