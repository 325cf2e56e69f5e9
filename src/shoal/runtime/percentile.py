"""The percentile of what was measured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def percentile(ordered: Sequence[float], quantile: float) -> float | None:
    """The nearest-rank percentile of sorted values: one that was measured, never one between two.

    Args:
        ordered: The values, the least first.
        quantile: In [0, 1]; 0.5 for the median.

    Returns:
        None of no values at all.
    """
    if not ordered:
        return None
    return ordered[max(math.ceil(quantile * len(ordered)), 1) - 1]
