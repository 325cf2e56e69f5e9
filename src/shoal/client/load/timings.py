"""Sums of what answers say of their time, and the means of it. No clock, no I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shoal.client.load.record import STAGES

if TYPE_CHECKING:
    from shoal.client.results import Timing


@dataclass(slots=True)
class Timings:
    """Of any number of answers."""

    number: int = 0
    stage_us: Counter[str] = field(default_factory=Counter)
    """Sums, by stage."""
    batches: float = 0.0
    """The sum of 1 / batch size: how many batches those answers were."""
    in_batches: int = 0
    """How many of those answers; the others came from a result cache."""

    def add(self, timing: Timing) -> None:
        """Counts one."""
        self.number += 1
        for stage in STAGES:
            self.stage_us[stage] += getattr(timing, f"{stage}_us")
        if not timing.cached:
            self.batches += 1 / max(timing.batch_size, 1)
            self.in_batches += 1

    def extend(self, other: Timings) -> None:
        """Takes in what another process counted."""
        self.number += other.number
        self.stage_us.update(other.stage_us)
        self.batches += other.batches
        self.in_batches += other.in_batches

    @property
    def mean_batch_size(self) -> float:
        """Over batches, not over answers: large batches do not count more often."""
        return self.in_batches / self.batches if self.batches else 0.0

    def mean_us(self, stage: str) -> int | None:
        """Microseconds; None where nothing was counted."""
        return round(self.stage_us[stage] / self.number) if self.number else None
