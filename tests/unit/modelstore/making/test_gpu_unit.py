"""Who may use a GPU's JPEG unit."""

from __future__ import annotations

import importlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import shoal.modelstore.making

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GPU = Path(shoal.modelstore.making.__file__).with_name("gpu")
OTHER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from hardware_unit import Unit
unit = Unit(sys.argv[3], shared=False, folder=Path(sys.argv[2]))
print("here", flush=True)
for _ in sys.stdin:
    with unit.turn() as ours:
        print(ours, flush=True)
        if ours:
            input()
"""


@pytest.fixture
def unit(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(GPU))
    module = importlib.import_module("hardware_unit")
    monkeypatch.setattr(module, "monotonic", lambda: module.now)
    module.now = 0.0
    return module


@pytest.fixture
def make(unit: Any, tmp_path: Path) -> Callable[..., Any]:
    return lambda gpu="a", shared=False: unit.Unit(gpu, shared=shared, folder=tmp_path)


@contextmanager
def other_process(folder: Path, gpu: str = "a") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", OTHER, str(GPU), str(folder), gpu]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def says(process: subprocess.Popen[str], told: str = "") -> str:
    assert process.stdin
    assert process.stdout
    if told:
        process.stdin.write(told)
        process.stdin.flush()
    return process.stdout.readline().strip()


def has_turn(unit: Any) -> bool:
    with unit.turn() as ours:
        return bool(ours)


def test_who_is_alone_has_it(make: Callable[..., Any], tmp_path: Path) -> None:
    mine = make()
    assert [has_turn(mine), has_turn(mine), mine.trouble] == [True, True, ""]
    with other_process(tmp_path, gpu="b") as other:
        assert says(other) == "here"
        assert has_turn(mine)
        assert says(other, "turn\n") == "True"


def test_of_two_none_has_it_until_one_has_ended(unit: Any, make: Callable[..., Any], tmp_path: Path) -> None:
    first = make()
    with other_process(tmp_path) as other:
        assert says(other) == "here"
        assert not has_turn(first)
        assert says(other, "turn\n") == "False"
    assert has_turn(first)
    second, third = make(), make()
    assert not any(map(has_turn, (first, second, third)))
    assert "MPS" in second.trouble
    for file in (first._first, first._others):  # it ends
        unit.os.close(file)
    assert not has_turn(second), "asked again at once"
    unit.now = unit.AGAIN_SECONDS
    assert not has_turn(second), "the third is there"
    unit.os.close(third._others)
    assert has_turn(second)


def test_who_comes_waits_for_the_batch_that_is_being_decoded(make: Callable[..., Any], tmp_path: Path) -> None:
    with other_process(tmp_path) as first:
        assert says(first) == "here"
        assert says(first, "turn\n") == "True"
        with ThreadPoolExecutor(1) as threads:
            newcomer = threads.submit(make)
            assert not newcomer.done()
            assert first.stdin
            first.stdin.write("ended\n")
            first.stdin.flush()
            assert not has_turn(newcomer.result(10))
            assert says(first, "turn\n") == "False"


def test_under_mps_all_have_it(make: Callable[..., Any]) -> None:
    units = make(), make(shared=True), make(shared=True)
    with units[1].turn() as one, units[2].turn() as other:
        assert one
        assert other


def test_a_unit_that_does_not_answer_ends_the_process_and_is_not_used_again(
    unit: Any, make: Callable[..., Any], tmp_path: Path
) -> None:
    mine, codes = make(), []
    with mine.turn():
        unit.now = unit.PATIENCE_SECONDS
        assert not mine.hangs()
        unit.now += 1
        assert mine.hangs()
        mine._watch(codes.append)
    assert codes == [1]
    assert not mine.hangs()
    assert not has_turn(mine)
    assert "until it is removed" in mine.trouble
    assert has_turn(make(shared=True))
    next(tmp_path.glob("*.hung")).unlink()
    assert has_turn(mine)


def test_under_mps_one_that_hung_is_used_by_the_next_process(unit: Any, make: Callable[..., Any]) -> None:
    mine, codes = make(shared=True), []
    with mine.turn():
        unit.now = 2 * unit.PATIENCE_SECONDS
        mine._watch(codes.append)
    assert codes == [1]
    assert has_turn(make(shared=True))


def test_after_an_error_it_is_free(unit: Any, make: Callable[..., Any]) -> None:
    mine = make()
    with pytest.raises(RuntimeError), mine.turn():
        raise RuntimeError
    unit.now = 2 * unit.PATIENCE_SECONDS
    assert not mine.hangs()
    assert has_turn(mine)
