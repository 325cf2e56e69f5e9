"""What a bad neighbour cost a good one."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Neighbour:
    """Its calls; times are milliseconds."""

    calls: int
    """Beside the attack."""
    failed: int
    quiet_p50: float
    beside_p50: float
    quiet_p99: float
    beside_p99: float

    @classmethod
    def of(cls, quiet: Sequence[float], beside: Sequence[float], failed: int) -> Self:
        """From the seconds that its calls took before the attack and beside it."""
        before, during = _hundredths(quiet), _hundredths(beside)
        return cls(len(beside), failed, before[49], during[49], before[98], during[98])


def _hundredths(seconds: Sequence[float]) -> list[float]:
    return [round(1000 * each, 1) for each in quantiles(seconds, n=100, method="inclusive")]
