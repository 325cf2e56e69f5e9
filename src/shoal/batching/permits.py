"""How many batches a worker takes at once, and who is next."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final

from shoal.batching.fair_queue import FairQueue
from shoal.errors import Unavailable
from shoal.runtime.release import Releasable

if TYPE_CHECKING:
    from collections.abc import Callable

DRAINING: Final = "the worker is draining"
IDLE_SECONDS: Final = 0.05
"""Whoever has something to send uses a permit within milliseconds. One that is idle for longer stays good, but counts
against its holder alone: else a batcher without work would shut the others out."""


@dataclass(eq=False, slots=True)
class _Waiter:
    owner: str
    """Who asks: its owner, as the queue sees it."""
    ready: asyncio.Future[Permit]


class Permit(Releasable):
    """The right to one batch; a context manager. Giving it back twice is harmless."""

    def __init__(self, gate: PermitGate, asker: str) -> None:
        self.asker = asker
        self._gate = gate

    def use(self) -> None:
        """The batch has items now."""
        self._gate.use(self)

    def renew(self) -> bool:
        """Its batch is through: keeps it for the next one if nobody else waits, else gives it back."""
        return self._gate.renew(self)

    def release(self) -> None:
        """Gives it back."""
        self._gate.give_back(self)


class PermitGate:
    """Grants permits to those who ask, in turn, so that one can't shut out another.

    Of permits in use or just granted there are ``limit`` at most, and nobody gets more than that together with those in
    use. So one asker gets ``limit`` in all; of several, those who were idle may exceed it together for one batch each.
    """

    def __init__(
        self, limit: int, idle_seconds: float = IDLE_SECONDS, used: Callable[[float], object] = lambda _: None
    ) -> None:
        """Prepares.

        Args:
            limit: Batches at once.
            idle_seconds: After so long an unused permit counts against its holder alone.
            used: Told for how many seconds a permit was in use, when it is so no longer.
        """
        self.limit = limit
        self.closed = asyncio.Event()
        """Set once nothing new is taken: streams that hold a permit but no items yet had better end."""
        self._idle_seconds = idle_seconds
        self._waiters: FairQueue[_Waiter] = FairQueue()
        self._in_use: dict[Permit, float] = {}
        self._used = used
        self._fresh: dict[Permit, asyncio.TimerHandle] = {}
        self._idle: set[Permit] = set()
        self._all_back = asyncio.Event()
        self._all_back.set()

    @property
    def granted(self) -> int:
        """Permits that are out."""
        return self.in_use + len(self._fresh) + len(self._idle)

    @property
    def in_use(self) -> int:
        """Permits whose batches have items."""
        return len(self._in_use)

    async def acquire(self, asker: str) -> Permit:
        """Waits for a permit; ``asker`` names a batcher's queue, and askers take turns.

        Raises:
            Unavailable: the gate is closed, or was closed meanwhile.
        """
        if self.closed.is_set():
            raise Unavailable(DRAINING)
        waiter = _Waiter(asker, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._serve()
        try:
            return await waiter.ready
        except asyncio.CancelledError:
            if not self._waiters.discard(waiter) and _was_granted(waiter):
                self.give_back(waiter.ready.result())
            raise

    def use(self, permit: Permit) -> None:
        """Counts the permit as one in use."""
        self._no_longer_unused(permit)
        self._in_use[permit] = monotonic()

    def renew(self, permit: Permit) -> bool:
        """Makes a permit in use one just granted; gives it back if the gate is closed or another one waits."""
        if self.closed.is_set() or any(asker != permit.asker for asker in self._waiters.owners):
            self.give_back(permit)
            return False
        self._no_longer_used(permit)
        self._refresh(permit)
        return True

    def give_back(self, permit: Permit) -> None:
        """Takes a permit back, if it is out, and grants what may be granted now."""
        self._no_longer_unused(permit)
        self._no_longer_used(permit)
        self._serve()
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

    def _serve(self) -> None:
        passed = []
        while self._waiters and len(self._in_use) + len(self._fresh) < self.limit:
            waiter = self._waiters.take(1)[0]
            if self._has_enough(waiter.owner):
                passed.append(waiter)
            elif not waiter.ready.done():
                waiter.ready.set_result(self._grant(waiter.owner))
        for waiter in reversed(passed):
            self._waiters.push_back(waiter)

    def _has_enough(self, asker: str) -> bool:
        unused = sum(permit.asker == asker for permit in (*self._fresh, *self._idle))
        return len(self._in_use) + unused >= self.limit

    def _grant(self, asker: str) -> Permit:
        permit = Permit(self, asker)
        self._refresh(permit)
        self._all_back.clear()
        return permit

    def _refresh(self, permit: Permit) -> None:
        self._fresh[permit] = asyncio.get_running_loop().call_later(self._idle_seconds, self._grow_stale, permit)

    def _grow_stale(self, permit: Permit) -> None:
        del self._fresh[permit]
        self._idle.add(permit)
        self._serve()

    def _no_longer_used(self, permit: Permit) -> None:
        since = self._in_use.pop(permit, None)
        if since is not None:
            self._used(monotonic() - since)

    def _no_longer_unused(self, permit: Permit) -> None:
        self._idle.discard(permit)
        if timer := self._fresh.pop(permit, None):
            timer.cancel()


def _was_granted(waiter: _Waiter) -> bool:
    return waiter.ready.done() and not waiter.ready.cancelled() and waiter.ready.exception() is None
