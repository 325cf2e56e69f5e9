"""How many batches a worker takes at once, and who is next."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from shoal.batching.fair_queue import FairQueue
from shoal.errors import Unavailable
from shoal.runtime.clock import LoopClock
from shoal.runtime.priority import Priority
from shoal.runtime.release import Releasable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shoal.runtime.clock import Clock, Timer

DRAINING: Final = "the worker is draining"
IDLE_SECONDS: Final = 0.05
"""Whoever has something to send uses a permit within milliseconds. One that is idle for longer stays good, but counts
against its holder alone: else a batcher without work would shut the others out."""


class Ready(Protocol):
    """What a permit is put into: a future, or what stands for one."""

    def done(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def set_result(self, permit: Permit, /) -> None:
        """Here it is."""
        ...

    def set_exception(self, error: Unavailable, /) -> None:
        """There will be none."""
        ...


@dataclass(eq=False, slots=True)
class _Waiter:
    owner: str
    """Who asks: its owner, as the queue sees it."""
    ready: Ready


class Permit(Releasable):
    """The right to one batch; a context manager. Giving it back twice is harmless."""

    def __init__(self, permits: _Class, asker: str) -> None:
        self.asker = asker
        self._permits = permits

    def use(self) -> None:
        """The batch has items now."""
        self._permits.use(self)

    def renew(self) -> bool:
        """Its batch is through: keeps it for the next one if nobody else waits, else gives it back."""
        return self._permits.renew(self)

    def release(self) -> None:
        """Gives it back."""
        self._permits.give_back(self)


class PermitGate:
    """Grants permits to those who ask, in turn, so that one can't shut out another.

    Of interactive permits in use or just granted there are ``limit`` at most, and nobody gets more than that together
    with those in use. So one asker gets ``limit`` in all; of several, those who were idle may exceed it together for
    one batch each. Bulk has what interactive batches leave of ``limit``, and always one: so a bulk batch is prepared
    whatever else runs, and no interactive one waits here for it.
    """

    def __init__(
        self,
        limit: int,
        idle_seconds: float = IDLE_SECONDS,
        used: Callable[[float, Priority], object] = lambda _, __: None,
        clock: Clock | None = None,
    ) -> None:
        """Prepares.

        Args:
            limit: Batches at once.
            idle_seconds: After so long an unused permit counts against its holder alone.
            used: Told for how many seconds a permit was in use, when it is so no longer, and its priority.
            clock: None: the running event loop's.
        """
        self.limit = limit
        self.closed = asyncio.Event()
        """Set once nothing new is taken: streams that hold a permit but no items yet had better end."""
        self._all_back = asyncio.Event()
        self._all_back.set()

        def of(priority: Priority, most: Callable[[], int]) -> _Class:
            return _Class(self, most, idle_seconds, lambda seconds: used(seconds, priority), clock or LoopClock())

        interactive = of(Priority.INTERACTIVE, lambda: limit)
        bulk = of(Priority.BULK, lambda: max(1, limit - interactive.in_use))
        self._classes = {Priority.INTERACTIVE: interactive, Priority.BULK: bulk}

    @property
    def granted(self) -> int:
        """Permits that are out."""
        return sum(each.granted for each in self._classes.values())

    @property
    def in_use(self) -> int:
        """Permits whose batches have items."""
        return sum(map(self.in_use_of, Priority))

    def in_use_of(self, priority: Priority) -> int:
        """Those of one priority."""
        return self._classes[priority].in_use

    async def acquire(self, asker: str, priority: Priority = Priority.INTERACTIVE) -> Permit:
        """Waits for a permit; ``asker`` names a batcher's queue, and askers of a priority take turns.

        Raises:
            Unavailable: the gate is closed, or was closed meanwhile.
        """
        if self.closed.is_set():
            raise Unavailable(DRAINING)
        return await self._classes[priority].acquire(asker)

    def ask(self, asker: str, priority: Priority, ready: Ready) -> None:
        """As ``acquire``, for whoever has no event loop: the permit is put into ``ready``, maybe at once."""
        self._classes[priority].ask(asker, ready)

    def close(self) -> None:
        """Turns away all who wait and all who come."""
        self.closed.set()
        for each in self._classes.values():
            each.turn_away()

    async def drained(self) -> None:
        """Returns when no permit is out."""
        await self._all_back.wait()

    def went_out(self) -> None:
        """A permit was granted."""
        self._all_back.clear()

    def changed(self) -> None:
        """A permit came back, or is no longer in use."""
        self._classes[Priority.BULK].serve()  # it has what interactive batches leave
        if not self.granted:
            self._all_back.set()


class _Class:
    """The permits of one priority."""

    def __init__(
        self,
        gate: PermitGate,
        most: Callable[[], int],
        idle_seconds: float,
        used: Callable[[float], object],
        clock: Clock,
    ) -> None:
        """Prepares; ``most`` answers how many may be in use or just granted now."""
        self._gate = gate
        self._most = most
        self._idle_seconds = idle_seconds
        self._used = used
        self._clock = clock
        self._waiters: FairQueue[_Waiter] = FairQueue()
        self._in_use: dict[Permit, float] = {}
        self._fresh: dict[Permit, Timer] = {}
        self._idle: set[Permit] = set()

    @property
    def granted(self) -> int:
        """Permits that are out."""
        return self.in_use + len(self._fresh) + len(self._idle)

    @property
    def in_use(self) -> int:
        """Permits whose batches have items."""
        return len(self._in_use)

    async def acquire(self, asker: str) -> Permit:
        """Waits for a permit. Raises Unavailable where ``turn_away`` comes first."""
        ready: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        waiter = self.ask(asker, ready)
        try:
            return await ready
        except asyncio.CancelledError:
            if not self._waiters.discard(waiter) and _was_granted(ready):
                self.give_back(ready.result())
            raise

    def ask(self, asker: str, ready: Ready) -> _Waiter:
        """One more waits."""
        waiter = _Waiter(asker, ready)
        self._waiters.append(waiter)
        self.serve()
        return waiter

    def use(self, permit: Permit) -> None:
        """Counts the permit as one in use."""
        self._no_longer_unused(permit)
        self._in_use[permit] = self._clock.now()

    def renew(self, permit: Permit) -> bool:
        """Makes a permit in use one just granted.

        Gives it back where the gate is closed, another one waits, or there are more than there may be by now.
        """
        wanted = self._gate.closed.is_set() or any(asker != permit.asker for asker in self._waiters.owners)
        if wanted or len(self._in_use) + len(self._fresh) > self._most():
            self.give_back(permit)
            return False
        self._no_longer_used(permit)
        self._refresh(permit)
        self._gate.changed()
        return True

    def give_back(self, permit: Permit) -> None:
        """Takes a permit back, if it is out, and grants what may be granted now."""
        self._no_longer_unused(permit)
        self._no_longer_used(permit)
        self.serve()
        self._gate.changed()

    def turn_away(self) -> None:
        """Whoever waits gets Unavailable."""
        for waiter in self._waiters.take(len(self._waiters)):
            if not waiter.ready.done():
                waiter.ready.set_exception(Unavailable(DRAINING))

    def serve(self) -> None:
        """Grants what may be granted now."""
        while len(self._in_use) + len(self._fresh) < self._most():
            asker = next((each for each in self._waiters.owners if not self._has_enough(each)), None)
            if asker is None:
                return
            waiter = self._waiters.take_of(asker)
            if not waiter.ready.done():
                waiter.ready.set_result(self._grant(asker))

    def _has_enough(self, asker: str) -> bool:
        unused = sum(permit.asker == asker for permit in self._unused())
        return len(self._in_use) + unused >= self._most()

    def _unused(self) -> Iterator[Permit]:
        yield from self._fresh
        yield from self._idle

    def _grant(self, asker: str) -> Permit:
        permit = Permit(self, asker)
        self._refresh(permit)
        self._gate.went_out()
        return permit

    def _refresh(self, permit: Permit) -> None:
        self._fresh[permit] = self._clock.call_later(self._idle_seconds, self._grow_stale, permit)

    def _grow_stale(self, permit: Permit) -> None:
        del self._fresh[permit]
        self._idle.add(permit)
        self.serve()

    def _no_longer_used(self, permit: Permit) -> None:
        since = self._in_use.pop(permit, None)
        if since is not None:
            self._used(self._clock.now() - since)

    def _no_longer_unused(self, permit: Permit) -> None:
        self._idle.discard(permit)
        if timer := self._fresh.pop(permit, None):
            timer.cancel()


def _was_granted(ready: asyncio.Future[Permit]) -> bool:
    return ready.done() and not ready.cancelled() and ready.exception() is None
