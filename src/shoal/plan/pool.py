"""GPUs that serve the same models, and how they serve them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from shoal.plan.bound import gpus

if TYPE_CHECKING:
    from shoal.plan.bound import PlannedLoad


@dataclass(frozen=True, slots=True)
class Tuning:
    """One way to serve a pool's models."""

    closing: Literal["objective", "delay"] = "objective"
    """Whether batches close by the latency objective, or after the delay in which a full one gathers."""
    instances: Literal["each", "shares"] = "each"
    """Whether each model executes as many batches at once as is best for it alone; or the heaviest does, and the others
    in proportion to their load, since all share the device in equal parts a batch."""


@dataclass(frozen=True, slots=True)
class PlannedPool:
    """GPUs that serve the same models."""

    name: str
    models: tuple[PlannedLoad, ...]
    tuning: Tuning = field(default_factory=Tuning)

    @property
    def peak_hour(self) -> int:
        """When its own load is heaviest."""
        hours = range(len(self.models[0].rates))
        return max(hours, key=lambda hour: (gpus(self.models, hour), -hour))

    def need(self, hour: int) -> float:
        """The arithmetic bound of an hour."""
        return gpus(self.models, hour)
