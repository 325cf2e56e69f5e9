"""Where a worker learns which models to serve: from a model store, or from a Triton that has one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Mapping

    from shoal.modelconfig.model import ModelConfig
    from shoal.worker.readiness import Available

log = logging.getLogger(__name__)


class Offer(NamedTuple):
    """A model as it is now."""

    config: ModelConfig
    identity: tuple[int, ...] = ()
    """Its file's inode, modification time and size: differs once the file was replaced or written to."""


class Source(Protocol):
    """Models for one pool."""

    @property
    def found(self) -> Available:
        """What was there at the last ``offers``, and what of it can't be served."""
        ...

    async def offers(self) -> Mapping[str, Offer]:
        """Those that can be served, by name; faults of the others are logged, each once.

        Raises:
            ShoalError: where they come from can't be read now.
        """
        ...

    def changes(self) -> AsyncGenerator[None]:
        """Yields now and whenever there may be something new."""
        ...


class Refusals(dict[str, str]):
    """Models that can't be served, and why; each reason is logged once, however often it is found."""

    def note(self, name: str, reason: str) -> None:
        """``name`` can't be served."""
        if self.get(name) != reason:
            log.warning("model %s is not served: %s", name if name.isprintable() else repr(name), reason)
        self[name] = reason

    def keep(self, names: Collection[str]) -> None:
        """The others are gone, or are served by now."""
        for name in self.keys() - set(names):
            del self[name]
