"""How a worker wants its batches: what it tells the batcher with each first permit, and under which names."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator


SETTINGS = "x-shoal-batching"
"""In a stream's initial metadata: what ``BatchingSettings.write`` wrote."""
WORKER = "x-shoal-worker"
"""There, too: a name for the worker's process, which no other has."""
TAKES = "x-shoal-takes"
"""There, too: what the worker understands beyond the protocol's first version, with commas between."""
WITHDRAWN = "withdrawn"
"""One of these: ``BatchChunk.withdrawn``."""
TAKEN = "x-shoal-taken"
"""In a stream's trailers, where the worker ends it: items from this index on were never begun."""
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

    def write(self) -> str:
        """The text that ``read`` reads: what travels as ``x-shoal-batching``."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Reading:
        """Reads what a worker of any version wrote.

        A field that isn't there has its default; one that isn't known, since the worker is newer, is told and left out.

        Raises:
            ConfigurationError: naming what can't be read.
        """
        told = _object(text)
        known = {field.name for field in fields(cls)}
        values = {name: _value(name, value) for name, value in told.items() if name in known}
        settings = cls(**values)
        settings._check_numbers()
        return Reading(settings, tuple(sorted(told.keys() - known)))

    def check(self) -> None:
        """Raises ConfigurationError, naming every field that makes no sense."""
        if faults := list(self._faults()):
            raise ConfigurationError("batching settings: " + "; ".join(faults))

    def _check_numbers(self) -> None:
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
        for name in ("max_queue_delay_microseconds", "max_queue_size"):
            if getattr(self, name) < 0:
                yield f"{name} is {getattr(self, name)}: expected 0 or more"


class Reading(NamedTuple):
    """What a worker told."""

    settings: BatchingSettings
    unknown: tuple[str, ...]
    """Names of fields that this version doesn't know."""


def _object(text: str) -> dict[str, Any]:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigurationError(f"{text[:100]!r} is not JSON") from None
    if not isinstance(told, dict):
        raise ConfigurationError(f"{text[:100]!r} is not a JSON object")
    return told


def _value(name: str, value: Any) -> Any:  # noqa: ANN401 - what JSON brings
    """The value of a known field: an integer, or a tuple of some."""
    if name == "preferred_batch_size":
        if isinstance(value, list) and all(type(size) is int for size in value):
            return tuple(value)
        raise ConfigurationError(f"{name} is {str(value)[:100]}: expected a list of integers")
    if type(value) is not int:  # a bool is none
        raise ConfigurationError(f"{name} is {str(value)[:100]}: expected an integer")
    return value
