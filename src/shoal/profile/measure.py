"""Drives a target through what is missing of a grid."""

from __future__ import annotations

from itertools import groupby
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from shoal.profile.observer import Observer
from shoal.runtime.together import together

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from shoal.profile.observer import Pace
    from shoal.profile.records import Round, Setting
    from shoal.profile.target import Loaded, Target

    Clock = Callable[[], float]


class Measured(NamedTuple):
    """One round of one cell."""

    setting: Setting
    round: Round
    executed_batch: float | None
    """Images in an execution, as the engine counted them; None where it doesn't."""


async def measure(
    target: Target, work: Iterable[Setting], pace: Pace, begin: Callable[[Setting], object] = lambda _: None
) -> AsyncIterator[Measured]:
    """Measures each of ``work`` in turn; the model is loaded again where the number of instances changes.

    Args:
        target: What is measured.
        work: May name a setting many times.
        pace: How long.
        begin: Called before each.

    Raises:
        ShoalError: what the engine says.
    """
    for instances, settings in groupby(work, key=lambda setting: setting.instances):
        async with target.loaded(instances) as model:
            for setting in settings:
                begin(setting)
                before = await model.executions()
                measured = await load(ClosedLoop(model, setting.batch, setting.concurrency), pace)
                yield Measured(setting, measured, _mean(before, await model.executions()))


class ClosedLoop(NamedTuple):
    """A closed loop of ``concurrency`` callers with batches of ``batch`` images."""

    model: Loaded
    batch: int
    concurrency: int


async def load(loop: ClosedLoop, pace: Pace, clock: Clock = perf_counter) -> Round:
    """Runs one closed loop until enough is measured."""
    (measured,) = await load_together([loop], pace, clock)
    return measured


async def load_together(loops: Sequence[ClosedLoop], pace: Pace, clock: Clock = perf_counter) -> list[Round]:
    """Runs several closed loops at once, each until enough is measured of all."""
    observers = [Observer(clock(), loop.batch, loop.concurrency, pace) for loop in loops]

    async def call(loop: ClosedLoop, observer: Observer) -> None:
        while not all(each.done for each in observers):
            started = clock()
            await loop.model.run(loop.batch)
            observer.finished(started, clock())

    pairs = zip(loops, observers, strict=True)
    await together(call(loop, observer) for loop, observer in pairs for _ in range(loop.concurrency))
    return [observer.round() for observer in observers]


def _mean(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    if before is None or after is None or after[0] <= before[0]:
        return None
    return round((after[1] - before[1]) / (after[0] - before[0]), 2)
