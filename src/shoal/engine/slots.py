"""Slots: a bounded number of input buffers, made when first needed and then reused."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from shoal.errors import Unavailable
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PREFETCHED = 1
"""Batches that fill while others execute."""
OVERSHOOT = 2
"""Permits are hints: so many batches more may come than they promise."""

S = TypeVar("S")


class ArraySlot:
    """Implements ``shoal.engine.Slot`` where rows of pixels lie one behind the other."""

    input: NDArray[Any]
    """``(max_batch_size, *config.input.shape)`` of ``config.input.dtype``, C-contiguous."""

    def row(self, number: int) -> NDArray[Any]:
        """A row, to be written in place."""
        row: NDArray[Any] = self.input[number]
        return row

    def move(self, source: int, target: int) -> None:
        """Copies a row."""
        if source != target:
            self.input[target] = self.input[source]


class SlotPool(Generic[S]):
    """Hands slots out, in order of asking; belongs to one event loop.

    Each priority has as many as the limit, so that neither waits for one that the other holds. As many are made as were
    ever needed at once.
    """

    def __init__(self, make: Callable[[], S], limit: int) -> None:
        """Makes slots with ``make``, up to ``limit`` of them for each priority."""
        self._make = make
        self._limit = limit
        self._free: list[S] = []
        self._held: dict[int, Priority] = {}
        """By ``id``: slots needn't be hashable."""
        self._out: Counter[Priority] = Counter()
        self._waiting: dict[Priority, deque[asyncio.Future[S]]] = {priority: deque() for priority in Priority}
        self._closed = False

    async def acquire(self, priority: Priority = Priority.INTERACTIVE) -> S:
        """A free slot; the one used last comes first, for its warm cache.

        Raises:
            Unavailable: the pool was closed.
            Exception: what making one raised; the next to ask tries again.
        """
        if self._closed:
            raise Unavailable("the model was unloaded; try again")
        if self._out[priority] == self._limit:
            return await self._wait(priority)
        slot = self._free.pop() if self._free else self._make()
        self._held[id(slot)] = priority
        self._out[priority] += 1
        return slot

    async def _wait(self, priority: Priority) -> S:
        waiter: asyncio.Future[S] = asyncio.get_running_loop().create_future()
        self._waiting[priority].append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(waiter.result())
            raise

    def release(self, slot: S) -> None:
        """Gives ``slot`` to whoever of its priority waits longest, else keeps it; a closed pool lets it go."""
        priority = self._held[id(slot)]
        waiting = self._waiting[priority]
        while waiting:
            waiter = waiting.popleft()
            if not waiter.done():
                waiter.set_result(slot)
                return
        del self._held[id(slot)]
        self._out[priority] -= 1
        if not self._closed:
            self._free.append(slot)

    def close(self) -> None:
        """Turns away who waits and who comes. Slots in use stay valid."""
        self._closed = True
        for waiting in self._waiting.values():
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_exception(Unavailable("the model was unloaded; try again"))
            waiting.clear()
        self._free.clear()
