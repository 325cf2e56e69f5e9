"""How a model wants its batches: Triton's dynamic batching settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator


DEFAULT_MODEL = "default"
"""Callers who name no model mean this one: ``Server`` and ``shoal serve batcher --worker`` agree on it."""


@dataclass(frozen=True, slots=True)
class BatchingSettings:
    """Triton's dynamic batching settings, in Triton's words and meaning (model_config.proto)."""

    max_batch_size: int = 1
    preferred_batch_size: tuple[int, ...] = ()
    """Empty means ``[max_batch_size]``."""
    max_queue_delay_microseconds: int = 0
    """How long the oldest request may wait for others. 0: never."""
    max_queue_size: int = 0
    """Requests that may wait; 0: no limit of the model's own."""
    default_timeout_microseconds: int = 0
    """Read and written for Triton; Shoal's batcher goes by the callers' own deadlines."""
    instance_count: int = 1
    """Batches that execute at once."""
    latency_objective_microseconds: int = 0
    """In place of the delay: within how long a request is to be answered. A batch closes as late as that allows. 0: the
    delay holds."""

    @property
    def open_seconds(self) -> float:
        """How long a batch may be open, at most."""
        return (self.latency_objective_microseconds or self.max_queue_delay_microseconds) / 1e6

    def check(self) -> None:
        """Raises ConfigurationError, naming every field that makes no sense."""
        if faults := list(self._faults()):
            raise ConfigurationError("batching settings: " + "; ".join(faults))

    def check_numbers(self) -> None:
        """Checks all but ``preferred_batch_size``, which a worker of another version may mean differently.

        Raises as ``check``.
        """
        if faults := list(self._numbers()):
            raise ConfigurationError("; ".join(faults))

    def _faults(self) -> Iterator[str]:
        yield from self._numbers()
        for size in self.preferred_batch_size:
            if not 0 < size <= self.max_batch_size:
                yield f"preferred_batch_size has {size}: expected 1 to max_batch_size, which is {self.max_batch_size}"

    def _numbers(self) -> Iterator[str]:
        for name in ("max_batch_size", "instance_count"):
            if getattr(self, name) < 1:
                yield f"{name} is {getattr(self, name)}: expected 1 or more"
        for name in ("max_queue_delay_microseconds", "latency_objective_microseconds", "max_queue_size"):
            if getattr(self, name) < 0:
                yield f"{name} is {getattr(self, name)}: expected 0 or more"
