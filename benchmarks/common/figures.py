"""From measurements to figures. No clock, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.common.cpu import Spent

OVERHEAD = ("router", "batcher", "rest")
"""What serving costs beyond fetch, decode and inference."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One way to classify pictures, for one window."""

    images: int
    cpu: Spent
    details: dict[str, Any] = field(default_factory=dict)
    """Whatever else is worth keeping, ready for JSON."""

    @property
    def images_per_s(self) -> float:
        """Pictures answered a second."""
        return self.images / self.cpu.seconds

    def cpu_ms(self, *components: str) -> float:
        """CPU milliseconds a picture of these components together."""
        return 1000 * sum(self.cpu.components.get(name, 0.0) for name in components) / max(self.images, 1)


def spread(values: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """Median and range of a figure over the rounds."""
    rounded = [round(value, digits) for value in values]
    return {"median": round(median(values), digits), "min": min(rounded), "max": max(rounded), "rounds": rounded}


def summary(rounds: Sequence[Measurement]) -> dict[str, Any]:
    """One way over all rounds; ``images_per_s`` is the median."""
    components = rounds[0].cpu.components
    return {
        "images_per_s": round(median(one.images_per_s for one in rounds), 2),
        "images_per_s_spread": spread([one.images_per_s for one in rounds], 2),
        "images": sum(one.images for one in rounds),
        "cpu_ms_per_image": {name: round(median(one.cpu_ms(name) for one in rounds), 4) for name in components},
        "cpu_ms_per_image_in_all": spread([one.cpu_ms(*components) for one in rounds]),
        "other_cores": spread([one.cpu.other_cores for one in rounds]),
        "details": [one.details for one in rounds],
    }


def ratio(ways: Sequence[Measurement], base: Sequence[Measurement]) -> dict[str, Any]:
    """Images a second of one way over those of another in the same round: what slows a round slows both."""
    return spread([way.images_per_s / one.images_per_s for way, one in zip(ways, base, strict=True)])


def overhead(rounds: Sequence[Measurement]) -> dict[str, Any]:
    """CPU milliseconds a picture of ``OVERHEAD``."""
    return spread([one.cpu_ms(*OVERHEAD) for one in rounds])


def best(rates: dict[str, list[float]]) -> str:
    """The name with the highest median."""
    by_median: Callable[[str], float] = lambda name: median(rates[name])  # noqa: E731 - typed, for max
    return max(rates, key=by_median)
