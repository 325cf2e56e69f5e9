"""How long a batch takes an engine, as a line over its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class CostCurve:
    """``seconds = base + size * slope``."""

    base: float = 0.0
    slope: float = 0.0

    def seconds(self, size: int) -> float:
        """Of one batch."""
        return self.base + size * self.slope

    def speed(self, _: int) -> float:
        """Of several batches at once: they take turns, and fill no gaps of each other's."""
        return 1.0

    def capacity(self, size: int) -> float:
        """Pictures a second of one instance that runs batch after batch of ``size``."""
        return size / self.seconds(size)

    def scaled(self, size: int, capacity: float) -> CostCurve:
        """The same shape, slower or faster, so that batches of ``size`` make ``capacity`` pictures a second."""
        factor = self.capacity(size) / capacity
        return CostCurve(self.base * factor, self.slope * factor)

    @classmethod
    def fit(cls, seconds: Mapping[int, float]) -> CostCurve:
        """The line through measured (size, seconds) with the least relative error."""
        sizes, times = np.array(list(seconds)), np.array(list(seconds.values()))
        slope, base = np.polyfit(sizes, times, 1, w=1 / times)
        return cls(max(float(base), 0.0), float(slope))

    def figures(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"base_ms": round(1000 * self.base, 4), "slope_ms": round(1000 * self.slope, 4)}
