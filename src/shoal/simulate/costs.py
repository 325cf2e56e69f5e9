"""What batches of a model take a device, by its ``profile.json``."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate
from statistics import median
from typing import TYPE_CHECKING, Final

from shoal.errors import ConfigurationError
from shoal.profile import records
from shoal.simulate.spreads import LogNormal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from shoal.profile.records import Cell

_MERGED: Final = 1.05
"""Times its size: so large an execution was more than one batch."""


@dataclass(frozen=True, slots=True)
class MeasuredCosts:
    """Implements ``EngineCosts``: straight lines between the sizes that were measured."""

    sizes: tuple[int, ...]
    """In order, at least one."""
    times: tuple[float, ...]
    """Seconds of a batch of each that has the device to itself. They don't sink."""
    speeds: tuple[float, ...] = (1.0,)
    """With 1 batch at once, 2, …; more go on as the last."""
    misfit: float = 0.0
    """By which part the rate of a measured setting differs from what this says of it, at most."""
    jitter: LogNormal | None = None
    """By how many times single batches took longer than the mean, where percentiles tell; a number and no seconds."""

    def seconds(self, size: int) -> float:
        """Of a batch that has the device to itself. One below the smallest measured takes as long as that."""
        sizes, times = self.sizes, self.times
        if size <= sizes[0]:
            return times[0]
        after = min(bisect_left(sizes, size), len(sizes) - 1)
        if not after:  # one size alone was measured: larger ones take more in proportion
            return times[0] * size / sizes[0]
        slope = (times[after] - times[after - 1]) / (sizes[after] - sizes[after - 1])
        return times[after - 1] + slope * (size - sizes[after - 1])

    def speed(self, executing: int) -> float:
        """Work done in a second while so many execute at once, over that of one alone."""
        return self.speeds[min(executing, len(self.speeds)) - 1]

    def rate(self, size: int, executing: int) -> float:
        """Pictures a second of so many batches of this size at once."""
        return size * self.speed(executing) / self.seconds(size)


def read(path: Path, instances: int | None = None, largest: int = 1) -> MeasuredCosts:
    """The costs that a profile tells.

    Args:
        path: ``profile.json``.
        instances: Cells of so many count. None: all, and batches in flight count as instances, as a model has it that
            executes several batches in one instance.
        largest: The largest batch that will be asked for.

    Raises:
        ConfigurationError: it is no profile, or doesn't tell; names the file, what is wrong and what would fit.
    """
    try:
        profile = records.read(path)
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror}") from error
    if profile is None:
        raise ConfigurationError(f"{path}: there is no such file; `shoal profile MODEL` writes one")
    try:
        return of_cells(profile.cells, instances, largest)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def of_times(batch_ms: Mapping[int, float], speed: Mapping[int, float]) -> MeasuredCosts:
    """Of milliseconds by size, and speeds by batches at once, of which that of 1 is 1.

    A larger batch takes no less than a smaller one; where one was measured so, that was noise.
    """
    sizes = sorted(batch_ms)
    best = {1: 1.0, **speed}
    counts = sorted(best)
    speeds = tuple(_between(counts, best, k) for k in range(1, counts[-1] + 1))
    return MeasuredCosts(tuple(sizes), tuple(accumulate((batch_ms[size] / 1000 for size in sizes), max)), speeds)


def of_cells(cells: Sequence[Cell], instances: int | None = None, largest: int = 1) -> MeasuredCosts:
    """As ``read``, of a profile's cells. Raises ConfigurationError, which names no file."""
    rates = _rates(_usable(cells, instances))
    alone = {batch: rate for (batch, flying), rate in rates.items() if flying == 1}
    if not alone:
        raise ConfigurationError("no cell has 1 batch in flight; `shoal profile --concurrency 1,2` measures that")
    sizes = tuple(sorted(alone))
    if largest > sizes[-1]:
        raise ConfigurationError(
            f"the largest batch measured is of {sizes[-1]}, and batches may be of {largest}; "
            f"`shoal profile --batch {','.join(map(str, (*sizes, largest)))}` measures it, or set max_batch_size "
            f"to {sizes[-1]}"
        )
    times = tuple(accumulate((size / alone[size] for size in sizes), max))
    speeds = _speeds(rates, alone, instances)
    costs = MeasuredCosts(sizes, times, speeds, jitter=_jitter(cells, instances))
    at_once = instances or math.inf
    misfit = max(abs(costs.rate(size, int(min(k, at_once))) / rate - 1) for (size, k), rate in rates.items())
    return MeasuredCosts(sizes, times, speeds, misfit, costs.jitter)


def _usable(cells: Sequence[Cell], instances: int | None) -> list[Cell]:
    measured = [cell for cell in cells if cell.rounds]
    if not measured:
        raise ConfigurationError("nothing was measured; `shoal profile MODEL` goes on where it ended")
    for cell in measured:
        if not all(math.isfinite(one.images_per_s) and one.images_per_s > 0 for one in cell.rounds):
            raise ConfigurationError(f"{_named(cell)}: images_per_s is not above 0; measure it again with --force")
        if cell.executed_batch is not None and cell.executed_batch > _MERGED * cell.batch:
            raise ConfigurationError(
                f"{_named(cell)}: the server merged batches ({cell.executed_batch:g} images in each); "
                "`shoal profile --instances` measures without its batcher"
            )
    chosen = [cell for cell in measured if instances in {None, cell.instances}]
    if not chosen:
        there = ", ".join(map(str, sorted({cell.instances for cell in measured})))
        raise ConfigurationError(
            f"no cell has {instances} instances, but {there}; `shoal profile --instances {instances}` measures it"
        )
    return chosen


def _rates(cells: Sequence[Cell]) -> Mapping[tuple[int, int], float]:
    """Images a second by batch and batches in flight; of several cells of a setting the longest measured."""
    found: dict[tuple[int, int], Cell] = {}
    for cell in sorted(cells, key=lambda each: (each.duration_s, each.instances <= each.concurrency)):
        found[cell.batch, cell.concurrency] = cell
    return {setting: cell.images_per_s.median for setting, cell in found.items()}


def _speeds(
    rates: Mapping[tuple[int, int], float], alone: Mapping[int, float], instances: int | None
) -> tuple[float, ...]:
    """By batches that execute at once; of numbers between those measured, on a line.

    With more in flight than instances the way to the engine is hidden, as a worker hides it: the best of these counts.
    """
    gains: dict[int, list[float]] = {1: [1.0]}
    for (batch, flying), rate in rates.items():
        if batch in alone and flying > 1:
            gains.setdefault(flying, []).append(rate / alone[batch])
    best: dict[int, float] = {}
    for flying, each in gains.items():
        k = min(flying, instances or flying)
        best[k] = max(median(each), best.get(k, 0.0))
    counts = sorted(best)
    return tuple(_between(counts, best, k) for k in range(1, counts[-1] + 1))


def _between(counts: Sequence[int], of: Mapping[int, float], k: int) -> float:
    after = counts[bisect_left(counts, k)]
    if after == k:
        return of[k]
    before = counts[bisect_left(counts, k) - 1]
    return of[before] + (of[after] - of[before]) * (k - before) / (after - before)


def _jitter(cells: Sequence[Cell], instances: int | None) -> LogNormal | None:
    """Of batches that had the device to themselves, its mean 1."""
    alone = [cell for cell in _usable(cells, instances) if cell.concurrency == 1]
    sigmas = [
        LogNormal.through(cell.p50_ms.median, cell.p99_ms.median).sigma
        for cell in alone
        if 0 < cell.p50_ms.median <= cell.p99_ms.median
    ]
    if not sigmas:
        return None
    sigma = median(sigmas)
    return LogNormal(math.exp(-(sigma**2) / 2), sigma)


def _named(cell: Cell) -> str:
    return f"the cell with instances {cell.instances}, batch {cell.batch}, concurrency {cell.concurrency}"
