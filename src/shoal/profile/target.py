"""What a profile is made of: an engine with one model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from shoal.profile.records import Subject


class Loaded(Protocol):
    """A model that takes batches."""

    async def run(self, batch: int) -> None:
        """Sends a batch of that many images and returns once it is answered; any number may be in flight.

        Raises:
            ShoalError: the engine is away, or refused it.
        """
        ...

    async def executions(self) -> tuple[int, int] | None:
        """Executions and images in them since some time in the past; None where the engine doesn't count."""
        ...


class Target(Protocol):
    """An engine with one model. Belongs to the running event loop."""

    @property
    def subject(self) -> Subject:
        """What it is."""
        ...

    @property
    def instances(self) -> int:
        """How many the configuration asks for."""
        ...

    def loaded(self, instances: int) -> AbstractAsyncContextManager[Loaded]:
        """The model with so many instances, for as long as the block runs.

        Raises:
            ConfigurationError: that can't be.
        """
        ...
