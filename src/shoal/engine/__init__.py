"""Engines: what runs a batch of decoded pictures through a model.

May use: errors, modelconfig, runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from shoal.errors import ConfigurationError, Unavailable
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from shoal.modelconfig.model import ModelConfig


class NotBatchable(ConfigurationError):
    """A model works with one picture, but not with several: what it answers depends on what else is in the batch."""


class Unsupported(ConfigurationError):
    """This engine can't run the model's graph; another may."""


class BrokenOff(Unavailable):
    """The engine went away under a batch with files that it was to decode: one of them may be the reason."""


class Slot(Protocol):
    """Input memory for one batch, owned by its engine and reused."""

    def row(self, number: int) -> NDArray[Any]:
        """One picture's pixels, to be written in place: ``config.input.shape`` of its dtype, C-contiguous."""
        ...

    def move(self, source: int, target: int) -> None:
        """The row ``target`` becomes what the row ``source`` is, whose own content means nothing from now on."""
        ...


@dataclass(frozen=True, slots=True)
class Inference:
    """What a batch gave."""

    outputs: Mapping[str, NDArray[np.generic]]
    """Output name to ``(size, *shape)``; the arrays are the caller's own and outlive the slot."""
    seconds: float
    """That the execution took, without the wait for a free instance."""
    version: int = 0
    """The version of the model that answered, where the engine says so; 0: the loaded one."""
    reports: NDArray[np.int32] | None = None
    """``(size, 4)``: what became of each row, of a model that decodes; see ``shoal.engine.triton.encoded_rows``."""


SlotType = TypeVar("SlotType", bound=Slot)


class LoadedModel(Protocol[SlotType]):
    """A warm model that takes batches."""

    @property
    def config(self) -> ModelConfig:
        """What it was loaded with."""
        ...

    @property
    def trouble(self) -> str:
        """Why it can't answer at present although it was loaded; empty: it can."""
        ...

    async def acquire(self, priority: Priority = Priority.INTERACTIVE) -> SlotType:
        """A free slot; waits while ``instance_count`` + 1 (+ a bounded overshoot) of that priority are in use."""
        ...

    def release(self, slot: SlotType) -> None:
        """Gives a slot back. Call once an acquire."""
        ...

    async def infer(self, slot: SlotType, size: int, timeout_microseconds: int = 0) -> Inference:
        """Runs the first ``size`` rows of ``slot``.

        At most ``instance_count`` calls execute at once; the others wait in order, whatever their priority: whose turn
        it is has been seen to before (``shoal.batching.turns``).

        Raises:
            Unavailable: the engine is away.
            BrokenOff: it went away under ``slot``, whose files had better not be sent again.
            DeadlineExceeded: ``timeout_microseconds`` (0: none) passed.
            Internal: the engine refused the batch.
        """
        ...

    async def close(self) -> None:
        """Turns new work away and waits for what runs."""
        ...


class Engine(Protocol):
    """Holds any number of models in one process."""

    async def load(self, config: ModelConfig) -> LoadedModel[Any]:
        """Loads and warms a model; another version of it may be loaded already.

        Raises:
            NotBatchable: not for batches of such a size; perhaps for batches of 1.
            Unsupported: this engine can't run such a graph.
            ConfigurationError: it can't be loaded; names file and reason.
        """
        ...

    async def close(self) -> None:
        """Closes every model."""
        ...
