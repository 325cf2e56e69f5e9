"""What a model's batches take a GPU, as it was measured: by their size, and by how many execute at once."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from shoal.errors import ConfigurationError
from shoal.profile import records

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from shoal.plan.document import PlannedModel


@dataclass(frozen=True, slots=True)
class MeasuredCosts:
    """Between measured points a straight line; a batch smaller than all of them takes as long as the smallest.

    So a calculation never makes a small batch cheaper than anything that was measured. Larger batches than the largest
    measured one are never planned.
    """

    points: tuple[tuple[int, float], ...]
    """Size of a batch and its seconds, alone on the GPU; in order of size."""
    speeds: tuple[tuple[int, float], ...] = ((1, 1.0),)
    """So many batches at once, and the work done in a second over that of one alone; in order."""

    @classmethod
    def of(cls, batch_ms: Mapping[int, float], speed: Mapping[int, float]) -> Self:
        """From milliseconds by size, and speeds; see ``PlannedModel``."""
        points = tuple((size, ms / 1000) for size, ms in sorted(batch_ms.items()))
        return cls(points, tuple(sorted({1: 1.0, **speed}.items())))

    @property
    def largest(self) -> int:
        """The largest measured batch."""
        return self.points[-1][0]

    @property
    def most_at_once(self) -> int:
        """The most batches at once that were measured."""
        return self.speeds[-1][0]

    def seconds(self, size: int) -> float:
        """Of a batch that has the GPU to itself."""
        return _between(self.points, size)

    def speed(self, executing: int) -> float:
        """Work done in a second with so many batches at once, over that of one alone."""
        return _between(self.speeds, executing)


def read(model: PlannedModel, name: str, folder: Path) -> MeasuredCosts:
    """The costs that a model of the plan file names.

    Args:
        model: It.
        name: What it is called there.
        folder: The plan file's; profiles are found from there.

    Raises:
        ConfigurationError: there is no such profile, it has no measurement, or it is something else.
    """
    if model.batch_ms is not None:
        return MeasuredCosts.of(model.batch_ms, model.speed)
    path = folder / str(model.profile)
    try:
        profile = records.read(path)
    except OSError as error:
        raise ConfigurationError(f"models.{name}.profile: {path}: can't be read: {error.strerror}") from error
    if profile is None:
        raise ConfigurationError(
            f"models.{name}.profile: {path}: there is no such file; shoal profile {name} makes one"
        )
    return _of_cells([cell for cell in profile.cells if cell.rounds], f"models.{name}.profile: {path}")


def _of_cells(cells: Sequence[records.Cell], where: str) -> MeasuredCosts:
    """Alone is one batch in flight; together is what n in flight did, in batches of the size most often measured so.

    A cell of n batches in flight on fewer instances is a queue and says nothing of batches that execute at once, unless
    the engine executes all that comes (a Triton whose backend has lanes reports one instance): there the rate grows.
    """
    alone = {cell.batch: cell.batch_ms for cell in cells if cell.concurrency == 1}
    if not alone:
        raise ConfigurationError(f"{where}: has no measurement with one batch in flight: --concurrency 1,… adds one")
    rates: dict[int, dict[int, float]] = {}
    for cell in cells:
        by_count = rates.setdefault(cell.batch, {})
        by_count[cell.concurrency] = max(by_count.get(cell.concurrency, 0.0), cell.images_per_s.median)
    together = max((size for size in rates if size in alone), key=lambda size: (len(rates[size]), size))
    one = rates[together][1]
    speeds, best = {}, 1.0
    for at_once, rate in sorted(rates[together].items()):
        if rate / one > best or at_once == 1:
            best = speeds[at_once] = min(rate / one, at_once)
    return MeasuredCosts.of(alone, speeds)


def _between(points: Sequence[tuple[int, float]], at: int) -> float:
    """On the line through neighbouring points; level before the first and after the last."""
    place = bisect_left(points, (at, 0.0))
    if place == len(points):
        return points[-1][1]
    if place == 0 or points[place][0] == at:
        return points[place][1]
    (low, below), (high, above) = points[place - 1], points[place]
    return below + (above - below) * (at - low) / (high - low)
