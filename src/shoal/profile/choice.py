"""The best setting for a latency that may not be exceeded. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.profile.records import Cell

TIE: Final = 0.02
"""Images a second that differ by a smaller share are the same: what is left is noise."""


def best(cells: Sequence[Cell], slo_ms: float) -> Cell | None:
    """The cell with the most images a second of those whose p99 is at most ``slo_ms``; None if there is none.

    Both are medians over the rounds. Of cells within ``TIE`` of the most the one with the fewest batches in flight
    wins, then that with the fewest instances, then the smallest batch: what is in flight or loaded takes memory, and a
    smaller batch fills sooner.
    """
    within = [cell for cell in cells if cell.p99_ms.median <= slo_ms]
    if not within:
        return None
    most = max(cell.images_per_s.median for cell in within)
    tied = [cell for cell in within if cell.images_per_s.median >= (1 - TIE) * most]
    return min(tied, key=lambda cell: (cell.concurrency, cell.instances, cell.batch))


def closest(cells: Sequence[Cell]) -> Cell:
    """The cell with the lowest p99."""
    return min(cells, key=lambda cell: cell.p99_ms.median)
