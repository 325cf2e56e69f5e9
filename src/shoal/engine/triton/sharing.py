"""Memory that a server and we share: regions of it, and how they are taken away."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from shoal.engine.triton.shared_memory import Region, is_removed, sweep
from shoal.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine

    from shoal.triton.client import TritonClient

_log = logging.getLogger(__name__)


class Sharing:
    """With one server. Takes away, at first, what dead workers left on this machine."""

    def __init__(self, client: TritonClient, *, wanted: bool = True) -> None:
        """``wanted``: whether to try; False sends all tensors in messages."""
        self.client = client
        self._shares = wanted
        self._unregistering: set[asyncio.Task[None]] = set()
        """What makes the server let go of memory."""
        self._has_shared = False
        self._short = False
        """Shared memory that we asked for couldn't be had, and that was said."""
        if removed := sweep():
            _log.info("removed %d regions of shared memory that dead workers left", removed)

    def region(self, size: int, reserved: int | None = None) -> Region | None:
        """Memory to share with the server, see ``Region``; None where that isn't possible."""
        if not self._shares:
            return None
        try:
            return Region(size, reserved=reserved)
        except OSError as error:  # less may be had by another model
            if not self._short:
                _log.warning(
                    "no shared memory for batches that need %s bytes of it, so those go in the messages: %s",
                    f"{size if reserved is None else reserved:,}",
                    error.strerror,
                )
            self._short = True
            return None

    def drop(self, regions: Collection[Region]) -> None:
        """Takes memory away: here at once, and at the server as soon as no request there uses it."""
        for region in regions:
            region.close()
        self._begin(self._unregister([region.name for region in regions]))

    async def dropped(self) -> None:
        """Waits until the server has let go of what was dropped, or won't."""
        if self._unregistering:
            await asyncio.wait(self._unregistering)

    def confirm(self) -> None:
        """The server took memory of ours, so its /dev/shm is ours: what it has that isn't there was a dead worker's."""
        if not self._has_shared:
            self._has_shared = True
            self._begin(self._unregister_removed())

    def _begin(self, unregistering: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(unregistering)
        self._unregistering.add(task)
        task.add_done_callback(self._unregistering.discard)

    async def _unregister_removed(self) -> None:
        with suppress(Unavailable, ConfigurationError):  # away, and so it has forgotten; or it tells nobody
            await self._unregister([name for name in await self.client.registered() if is_removed(name)])

    async def _unregister(self, names: Collection[str]) -> None:
        if left := await self.client.unregister(names):
            _log.warning("Triton at %s keeps %d regions of shared memory until it ends", self.client.url, len(left))

    def stop(self, reason: str) -> None:
        """Says once that from now on tensors go in the messages."""
        if self._shares:
            _log.warning("no shared memory with Triton, so tensors go in the messages: %s", reason)
        self._shares = False
