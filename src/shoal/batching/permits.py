"""How many batches a worker takes at once, and who is next."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from shoal.batcher.queue import FairQueue
from shoal.errors import Unavailable

if TYPE_CHECKING:
    from types import TracebackType

DRAINING = "the worker is draining"


@dataclass(eq=False, slots=True)
class _Waiter:
    owner: str
    ready: asyncio.Future[None]


class Permit:
    """The right to one batch; a context manager. Giving it back twice is harmless."""

    def __init__(self, gate: PermitGate) -> None:
        self._gate: PermitGate | None = gate

    def release(self) -> None:
        """Gives it back."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.give_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class PermitGate:
    """Grants up to ``limit`` permits at once, to those who ask in turn: one batcher can't shut out another."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.granted = 0
        self.closed = asyncio.Event()
        """Set once nothing new is taken: streams that hold a permit but no items yet had better end."""
        self._waiters: FairQueue[_Waiter] = FairQueue()
        self._all_back = asyncio.Event()
        self._all_back.set()

    async def acquire(self, batcher: str) -> Permit:
        """Waits for a permit.

        Raises:
            Unavailable: the gate is closed, or was closed meanwhile.
        """
        if self.closed.is_set():
            raise Unavailable(DRAINING)
        if self.granted < self.limit and not self._waiters:
            self._grant()
            return Permit(self)
        waiter = _Waiter(batcher, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            await waiter.ready
        except asyncio.CancelledError:
            if not self._waiters.discard(waiter) and _was_granted(waiter):
                self.give_back()
            raise
        return Permit(self)

    def give_back(self) -> None:
        """Takes one permit back and grants it to the next who waits."""
        self.granted -= 1
        while self.granted < self.limit and self._waiters:
            waiter = self._waiters.take(1)[0]
            if not waiter.ready.done():
                self._grant()
                waiter.ready.set_result(None)
        if not self.granted:
            self._all_back.set()

    def close(self) -> None:
        """Turns away all who wait and all who come."""
        self.closed.set()
        for waiter in self._waiters.take(len(self._waiters)):
            if not waiter.ready.done():
                waiter.ready.set_exception(Unavailable(DRAINING))

    async def drained(self) -> None:
        """Returns when no permit is out."""
        await self._all_back.wait()

    def _grant(self) -> None:
        self.granted += 1
        self._all_back.clear()


def _was_granted(waiter: _Waiter) -> bool:
    return waiter.ready.done() and not waiter.ready.cancelled() and waiter.ready.exception() is None
