"""Percentiles, and their milliseconds, the same way wherever latencies are told."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def percentile(ordered: Sequence[float], quantile: float) -> float | None:
    """The nearest-rank percentile of sorted values: one that was measured, never one between two."""
    if not ordered:
        return None
    return ordered[max(math.ceil(quantile * len(ordered)), 1) - 1]


def milliseconds(seconds: float | None) -> float | None:
    """Rounded to microseconds; None, which is of nothing measured, stays None."""
    return None if seconds is None else round(1000 * seconds, 3)
