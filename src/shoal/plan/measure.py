"""Drives a target through what is missing of a grid."""

from __future__ import annotations

import asyncio
from itertools import groupby
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from shoal.plan.observer import Observer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from shoal.plan.observer import Pace
    from shoal.plan.profile import Round, Setting
    from shoal.plan.target import Loaded, Target

    Clock = Callable[[], float]


class Measured(NamedTuple):
    """One round of one cell."""

    setting: Setting
    round: Round
    executed_batch: float | None
    """See ``Cell.executed_batch``."""


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
                measured = await load(model, setting.batch, setting.concurrency, pace)
                yield Measured(setting, measured, _mean(before, await model.executions()))


async def load(model: Loaded, batch: int, concurrency: int, pace: Pace, clock: Clock = perf_counter) -> Round:
    """A closed loop of ``concurrency`` callers with batches of ``batch`` images, until enough is measured."""
    observer = Observer(clock(), batch, concurrency, pace)

    async def call() -> None:
        while not observer.done:
            started = clock()
            await model.run(batch)
            observer.finished(started, clock())

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(call())
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None  # they all met the same engine
    return observer.round()


def _mean(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    if before is None or after is None or after[0] <= before[0]:
        return None
    return round((after[1] - before[1]) / (after[0] - before[0]), 2)
