"""The GPU runner's threads, with lanes that need no GPU."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import shoal.modelstore.making

if TYPE_CHECKING:
    from collections.abc import Iterator

GPU = Path(shoal.modelstore.making.__file__).with_name("gpu")
BATCHES = 6


class OutOfMemoryError(RuntimeError):
    pass


class Lane:
    frames = None

    def start(self, rows: int, prepared: object) -> None:
        pass

    def wait(self) -> tuple[dict[str, Any], float]:
        return {}, 0.0


class Preparer:
    def __init__(self) -> None:
        self.errors: list[Exception] = []

    def prepare(self, batch: object, frames: object) -> tuple[None, float]:
        if self.errors:
            raise self.errors.pop()
        return None, 0.0


class Job:
    def __init__(self, answered: SimpleQueue[str], *, can_answer: bool = True, can_fail: bool = True) -> None:
        self.batch = SimpleNamespace(rows=[1])
        self.decoded = 0.0
        self._answered = answered
        self._can_answer, self._can_fail = can_answer, can_fail

    def begin(self) -> None:
        pass

    def answer(self, outputs: object, seconds: float) -> None:
        if not self._can_answer:
            raise RuntimeError("no room for the answer")
        self._answered.put("answered")

    def fail(self, reason: str) -> None:
        if not self._can_fail:
            raise RuntimeError("no room for the error")
        self._answered.put(reason)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)
    return codes


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch, ended: list[int]) -> list[RuntimeError]:
    """What the GPU says to whoever tries it."""
    errors: list[RuntimeError] = []

    def zeros(*_: object, **__: object) -> Any:
        if errors:
            raise errors[0]
        return SimpleNamespace(cpu=lambda: None)

    cuda = SimpleNamespace(current_device=lambda: 0, set_device=lambda _: None, OutOfMemoryError=OutOfMemoryError)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda, zeros=zeros))
    monkeypatch.syspath_prepend(str(GPU))
    monkeypatch.delitem(sys.modules, "pipeline", raising=False)
    return errors


@pytest.fixture
def preparer() -> Preparer:
    return Preparer()


@pytest.fixture
def pipeline(broken: list[RuntimeError], preparer: Preparer) -> Iterator[Any]:
    made = importlib.import_module("pipeline").Pipeline(preparer, [Lane(), Lane()])
    yield made
    made.close()
    sys.modules.pop("pipeline")


@pytest.mark.parametrize("can_fail", [True, False])
def test_an_answer_that_can_not_be_sent_stops_no_lane(pipeline: Any, can_fail: bool) -> None:
    answered: SimpleQueue[str] = SimpleQueue()
    for _ in range(4):
        pipeline.put(Job(answered, can_answer=False, can_fail=can_fail))
    for _ in range(BATCHES):
        pipeline.put(Job(answered))
    found = [answered.get(timeout=30) for _ in range(BATCHES + 4 * can_fail)]
    assert found.count("answered") == BATCHES
    assert found.count("no room for the answer") == 4 * can_fail


@pytest.mark.parametrize("can_fail", [True, False])
def test_what_can_not_be_prepared_stops_nobody(pipeline: Any, preparer: Preparer, can_fail: bool) -> None:
    preparer.errors = [ValueError("not a picture"), OutOfMemoryError("full")]
    answered: SimpleQueue[str] = SimpleQueue()
    pipeline.put(Job(answered, can_fail=can_fail))
    pipeline.put(Job(answered, can_fail=can_fail))
    pipeline.put(Job(answered))
    found = [answered.get(timeout=30) for _ in range(1 + 2 * can_fail)]
    assert "answered" in found
    if can_fail:
        assert "not a picture" in found
        assert any("no memory left for a batch of 1: lower max_batch_size or shoal.lanes" in each for each in found)


def test_a_process_whose_gpu_is_lost_ends(
    pipeline: Any, preparer: Preparer, broken: list[RuntimeError], ended: list[int]
) -> None:
    answered: SimpleQueue[str] = SimpleQueue()
    preparer.errors = [RuntimeError("an illegal memory access")]
    pipeline.put(Job(answered))
    assert answered.get(timeout=30) == "an illegal memory access"
    pipeline.put(Job(answered))
    assert answered.get(timeout=30) == "answered"
    assert ended == [], "the GPU could be used after all"
    broken.append(RuntimeError("an illegal memory access"))
    preparer.errors = [RuntimeError("an illegal memory access")]
    pipeline.put(Job(answered))
    assert answered.get(timeout=30) == "an illegal memory access"
    pipeline.put(Job(answered))
    assert answered.get(timeout=30) == "answered"
    assert ended == [1]
