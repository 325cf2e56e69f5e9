"""What a run is told, and where its results lie."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.common.files import RESULTS
from benchmarks.peers.pictures import Size

CELLS = RESULTS / "peers"
"""One file a cell: what a run that was interrupted goes on from. Not kept in the repository."""
RESULT = RESULTS / "peers.json"
CHOICES = RESULTS / "peers_choices.json"

CALLERS = {Size.SMALL: 48, Size.LARGE: 32}
"""Of the closed loop. Two batches of 8 are executed, one is prepared, and the rest wait: more callers add nothing."""
OBJECTS = {Size.SMALL: 256, Size.LARGE: 24}
"""In Shoal's store."""
TIMEOUT_SECONDS = 30.0
SEED = 1
"""Of the arrivals: the same for all."""
LOAD = 0.5
"""Of the rate at saturation, where latency is measured."""


LONGER = {Size.SMALL: 1.0, Size.LARGE: 1.6}
"""Windows of large pictures, to those of small ones: a batch of 8 may take most of a second."""


@dataclass(frozen=True, slots=True)
class Window:
    """Of one measurement, in seconds."""

    seconds: float
    warm_up_seconds: float


@dataclass(frozen=True, slots=True)
class Windows:
    """How long, how often; results are comparable by it."""

    saturated_seconds: float = 4.0
    half_seconds: float = 4.0
    warm_up_seconds: float = 0.8
    rounds: int = 3

    @classmethod
    def quick(cls) -> Windows:
        """To see that it works."""
        return cls(1.5, 1.5, 0.5, 1)

    def saturated(self, size: Size) -> Window:
        """At saturation."""
        return Window(self.saturated_seconds * LONGER[size], self.warm_up_seconds * LONGER[size])

    def half(self, size: Size) -> Window:
        """At half of it."""
        return Window(self.half_seconds * LONGER[size], self.warm_up_seconds * LONGER[size])

    def told(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "longer": {str(size): factor for size, factor in LONGER.items()}}
