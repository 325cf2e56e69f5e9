"""Each request of a load test by itself: what a report draws."""

from __future__ import annotations

from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal.client.results import Timing

SERVICE_STAGES = ("queue", "fetch", "decode", "compute")
STAGES = ("upload", *SERVICE_STAGES)
_MILLISECONDS = 1000


def _floats() -> array[float]:
    return array("f")


@dataclass(slots=True)
class Record:
    """Arrays, so that a request costs 34 bytes. Times are seconds since the window's begin."""

    arrived: array[float] = field(default_factory=_floats)
    """Good answers that came within the window, whenever they were asked for."""
    finished: array[float] = field(default_factory=_floats)
    """Good answers to what was asked for within the window: one each in ``LoadResult.latencies``, in the same order."""
    batch_sizes: array[int] = field(default_factory=partial(array, "H"))
    """The batch sizes of those in ``finished``; 0: it was answered from a result cache. A pipeline's have none."""
    stage_ms: dict[str, array[float]] = field(default_factory=lambda: {stage: _floats() for stage in STAGES})
    """Their times, by stage."""
    failed: defaultdict[str, array[float]] = field(default_factory=lambda: defaultdict(_floats))
    """gRPC status name to when such requests failed."""

    def add(self, at_seconds: float, timing: Timing | None) -> None:
        """Notes a good answer; ``timing``: a model's."""
        self.finished.append(at_seconds)
        if timing is None:
            return
        self.batch_sizes.append(0 if timing.cached else min(max(timing.batch_size, 1), 65_535))
        for stage, values in self.stage_ms.items():
            values.append(getattr(timing, f"{stage}_us") / _MILLISECONDS)

    def extend(self, other: Record) -> None:
        """Takes in what another process noted of the same window."""
        self.arrived.extend(other.arrived)
        self.finished.extend(other.finished)
        self.batch_sizes.extend(other.batch_sizes)
        for stage, values in other.stage_ms.items():
            self.stage_ms[stage].extend(values)
        for code, times in other.failed.items():
            self.failed[code].extend(times)
