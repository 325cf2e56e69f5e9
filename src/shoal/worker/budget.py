"""A bounded amount of something, say bytes of memory, that owners share."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from dataclasses import dataclass

from shoal.errors import Overloaded
from shoal.runtime.release import Releasable


@dataclass(eq=False, slots=True)
class _Waiter:
    owner: str
    amount: int
    ready: asyncio.Future[Reservation]


class Reservation(Releasable):
    """A part of a budget; a context manager. Giving it back twice is harmless."""

    def __init__(self, budget: Budget, owner: str, amount: int) -> None:
        self.owner = owner
        self.amount = amount
        self._budget: Budget | None = budget

    @property
    def held(self) -> bool:
        """Whether it wasn't given back."""
        return self._budget is not None

    def release(self) -> None:
        """Gives it back."""
        budget, self._budget = self._budget, None
        if budget is not None:
            budget.give_back(self)


class Budget:
    """Hands out reservations, first come, first served for each owner and owners in turn; belongs to one event loop.

    A reservation of any size up to the limit is granted in the end: nobody is served before an owner who waits for
    others alone.
    """

    def __init__(self, limit: int, *, max_waiting: int, leaves_room: bool = False) -> None:
        """Prepares.

        Args:
            limit: Of all reservations together.
            max_waiting: Of one owner; more are turned away.
            leaves_room: No owner gets a second reservation that makes it hold more than it leaves free: one alone gets
                half, two get a third each, and so a newcomer always finds some (Choudhury and Hahne, "Dynamic queue
                length thresholds for shared-memory packet switches", IEEE/ACM ToN 1998).
        """
        self.limit = limit
        self._max_waiting = max_waiting
        self._leaves_room = leaves_room
        self._used = 0
        self._used_by: Counter[str] = Counter()
        self._waiting: OrderedDict[str, OrderedDict[_Waiter, None]] = OrderedDict()

    @property
    def used(self) -> int:
        """What is out."""
        return self._used

    def take(self, owner: str, amount: int) -> Reservation | None:
        """A reservation at once; None where it has to wait. Nobody is overtaken who waits for others."""
        waits_for_others = any(not self._used_by[each] for each in self._waiting)
        if waits_for_others or owner in self._waiting or not self._fits(owner, amount):
            return None
        return self._grant(owner, amount)

    async def acquire(self, owner: str, amount: int) -> Reservation:
        """Waits for a reservation; ``amount`` is at most the limit.

        Raises:
            Overloaded: too many of the owner's wait already.
        """
        if (reservation := self.take(owner, amount)) is not None:
            return reservation
        waiter = _Waiter(owner, amount, asyncio.get_running_loop().create_future())
        waiting = self._waiting.setdefault(owner, OrderedDict())
        if len(waiting) >= self._max_waiting:
            raise Overloaded("too many of your pictures wait to be fetched; try again later")
        waiting[waiter] = None
        self._serve()
        try:
            return await waiter.ready
        except asyncio.CancelledError:
            if waiter.ready.done() and not waiter.ready.cancelled():
                waiter.ready.result().release()
            else:
                self._take_out(waiter)
                self._serve()
            raise

    def give_back(self, reservation: Reservation) -> None:
        """Takes a reservation back, and grants what may be granted now."""
        self._used -= reservation.amount
        self._used_by[reservation.owner] -= reservation.amount
        if not self._used_by[reservation.owner]:
            del self._used_by[reservation.owner]
        self._serve()

    def _fits(self, owner: str, amount: int) -> bool:
        left = self.limit - self._used - amount
        own = self._used_by[owner]
        return left >= 0 and not (self._leaves_room and own and own + amount > left)

    def _grant(self, owner: str, amount: int) -> Reservation:
        self._used += amount
        self._used_by[owner] += amount
        return Reservation(self, owner, amount)

    def _serve(self) -> None:
        while (waiter := self._next()) is not None:
            self._take_out(waiter)
            if waiter.owner in self._waiting:
                self._waiting.move_to_end(waiter.owner)
            if not waiter.ready.done():
                waiter.ready.set_result(self._grant(waiter.owner, waiter.amount))

    def _next(self) -> _Waiter | None:
        """Who may be served now: passes over those who have to give something back first themselves."""
        for owner, waiting in self._waiting.items():
            waiter = next(iter(waiting))
            if waiter.ready.done() or self._fits(owner, waiter.amount):
                return waiter
            if not self._used_by[owner]:
                return None
        return None

    def _take_out(self, waiter: _Waiter) -> None:
        waiting: dict[_Waiter, None] = self._waiting.get(waiter.owner, OrderedDict())
        waiting.pop(waiter, None)
        if not waiting:
            self._waiting.pop(waiter.owner, None)
