"""Slots: a bounded number of input buffers, made when first needed and then reused."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from shoal.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

PREFETCHED = 1
"""Batches that fill while others execute."""
OVERSHOOT = 2
"""Permits are hints: so many batches more may come than they promise."""

S = TypeVar("S")


class SlotPool(Generic[S]):
    """Hands slots out, in order of asking; belongs to one event loop."""

    def __init__(self, make: Callable[[], S], limit: int) -> None:
        """Makes up to ``limit`` slots with ``make``."""
        self._make = make
        self._unmade = limit
        self._free: list[S] = []
        self._waiting: deque[asyncio.Future[S]] = deque()
        self._closed = False

    async def acquire(self) -> S:
        """A free slot; the one used last comes first, for its warm cache.

        Raises:
            Unavailable: the pool was closed.
            Exception: what making one raised; the next to ask tries again.
        """
        if self._closed:
            raise Unavailable("the model was unloaded; try again")
        if self._free:
            return self._free.pop()
        if self._unmade:
            slot = self._make()
            self._unmade -= 1
            return slot
        return await self._wait()

    async def _wait(self) -> S:
        waiter: asyncio.Future[S] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(waiter.result())
            raise

    def release(self, slot: S) -> None:
        """Gives ``slot`` to whoever waits longest, else keeps it; a closed pool lets it go."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(slot)
                return
        if not self._closed:
            self._free.append(slot)

    def close(self) -> None:
        """Turns away who waits and who comes. Slots in use stay valid."""
        self._closed = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(Unavailable("the model was unloaded; try again"))
        self._waiting.clear()
        self._free.clear()
