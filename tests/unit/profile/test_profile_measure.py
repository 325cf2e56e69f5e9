from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from shoal.errors import Unavailable
from shoal.profile.measure import ClosedLoop, load, load_together, measure
from shoal.profile.observer import Pace
from shoal.profile.records import Setting, Subject

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PACE = Pace(0.01, 0.0)


class Scripted:
    """A model of which each batch takes 10 ms of a clock of its own; as many at once as it has callers."""

    def __init__(self, fails_after: int = 1_000_000) -> None:
        self.now = 0.0
        self.batches: list[int] = []
        self._left = fails_after

    def clock(self) -> float:
        return self.now

    async def run(self, batch: int) -> None:
        if self._left == 0:
            raise Unavailable("the server is away")
        self._left -= 1
        self.batches.append(batch)
        due = self.now + 0.01
        await asyncio.sleep(0)
        self.now = max(self.now, due)

    async def executions(self) -> tuple[int, int]:
        return len(self.batches) // 2, sum(self.batches)


class Target:
    subject: Subject
    instances = 1

    def __init__(self) -> None:
        self.model = Scripted()
        self.loads: list[int] = []

    @asynccontextmanager
    async def loaded(self, instances: int) -> AsyncIterator[Scripted]:
        self.loads.append(instances)
        yield self.model


async def test_callers_are_in_flight_at_once() -> None:
    model = Scripted()
    measured = await load(ClosedLoop(model, 8, 4), Pace(1.0, 0.0), model.clock)
    assert measured.images_per_s == pytest.approx(4 * 8 / 0.01, rel=0.02)
    assert measured.p50_ms == pytest.approx(10)
    assert set(model.batches) == {8}


async def test_streams_together_run_until_both_are_measured() -> None:
    model = Scripted()
    first, second = await load_together([ClosedLoop(model, 8, 1), ClosedLoop(model, 2, 1)], Pace(0.5, 0.0), model.clock)
    assert first.images_per_s == pytest.approx(4 * second.images_per_s, rel=0.05)


async def test_a_model_is_loaded_again_only_for_other_instances() -> None:
    target = Target()
    work = [Setting(1, 8, 1), Setting(1, 4, 2), Setting(2, 8, 1), Setting(1, 8, 1)]
    begun: list[Setting] = []
    found = [one async for one in measure(target, work, PACE, begun.append)]
    assert [one.setting for one in found] == begun == work
    assert target.loads == [1, 2, 1]


async def test_what_the_engine_executed_is_told() -> None:
    target = Target()
    (one,) = [one async for one in measure(target, [Setting(1, 8, 2)], PACE)]
    assert one.executed_batch == pytest.approx(16, rel=0.2)  # this one merges two


async def test_an_engine_that_goes_away_ends_it() -> None:
    model = Scripted(fails_after=5)
    with pytest.raises(Unavailable, match="away"):
        await load(ClosedLoop(model, 8, 4), Pace(10.0, 0.0), model.clock)
