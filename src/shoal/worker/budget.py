"""A bounded amount of something, say bytes of memory, that owners share."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from shoal.errors import Overloaded
from shoal.runtime.precedence import Precedence
from shoal.runtime.priority import BULK, INTERACTIVE
from shoal.runtime.release import Releasable

if TYPE_CHECKING:
    from shoal.runtime.priority import Priority


class Account(NamedTuple):
    """On whose behalf, and how urgent: what an owner does in bulk takes nothing from what it does interactively."""

    owner: str
    bulk: bool = False
    """Not the priority itself, since enums are slow keys."""

    @property
    def priority(self) -> Priority:
        """How urgent."""
        return BULK if self.bulk else INTERACTIVE


class _Waiter(asyncio.Future["Reservation"]):
    """A reservation that is to come; who cancels it leaves the queue."""

    def __init__(self, budget: Budget, account: Account, amount: int) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self.account = account
        self.amount = amount
        self._budget = budget

    def cancel(self, msg: Any | None = None) -> bool:  # as its base has it
        """False, as of any future, once it was granted."""
        if super().cancel(msg):
            self._budget.leave(self)
            return True
        return False


_Queue: TypeAlias = "OrderedDict[Account, OrderedDict[_Waiter, None]]"


class Reservation(Releasable):
    """A part of a budget; a context manager. Giving it back twice is harmless."""

    __slots__ = ("_budget", "account", "amount")

    def __init__(self, budget: Budget, account: Account, amount: int) -> None:
        self.account = account
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
    """Hands out reservations, first come, first served for each account; belongs to one event loop.

    Interactive accounts go before bulk ones, but for bulk's share of turns; those of a priority take turns. A
    reservation of any size up to the limit is granted in the end: nobody is served before an account whose turn it is
    and that waits for others alone.
    """

    def __init__(self, limit: int, *, max_waiting: int, leaves_room: bool = False) -> None:
        """Prepares.

        Args:
            limit: Of all reservations together.
            max_waiting: Of one account; more are turned away.
            leaves_room: No account gets a second reservation that makes it hold more than it leaves free: one alone
                gets half, two get a third each, and so a newcomer always finds some (Choudhury and Hahne, "Dynamic
                queue length thresholds for shared-memory packet switches", IEEE/ACM ToN 1998).
        """
        self.limit = limit
        self._max_waiting = max_waiting
        self._leaves_room = leaves_room
        self._used = 0
        self._used_by: dict[Account, int] = {}
        """Of those that have any."""
        self._waiting: tuple[_Queue, _Queue] = OrderedDict(), OrderedDict()
        """Interactive accounts, and bulk ones."""
        self._precedence = Precedence()

    @property
    def used(self) -> int:
        """What is out."""
        return self._used

    def take(self, account: Account, amount: int) -> Reservation | None:
        """A reservation at once; None: it has to wait. Nobody is overtaken who goes before and waits for others."""
        if self._goes_after_others(account) or not self._fits(account, amount):
            return None
        return self._grant(account, amount)

    def queue(self, account: Account, amount: int) -> asyncio.Future[Reservation]:
        """The future of a reservation that ``take`` refused; ``amount`` is at most the limit.

        Cancelling it leaves the queue. One that is done can't be cancelled, as any future: then give back its result.

        Raises:
            Overloaded: too many of the account's wait already.
        """
        waiter = _Waiter(self, account, amount)
        waiting = self._waiting[account.bulk].setdefault(account, OrderedDict())
        if len(waiting) >= self._max_waiting:
            raise Overloaded("too many of your pictures wait to be fetched; try again later")
        waiting[waiter] = None
        self._serve()
        return waiter

    def leave(self, waiter: _Waiter) -> None:
        """One was cancelled, and waits no longer."""
        self._take_out(waiter)
        self._serve()

    def give_back(self, reservation: Reservation) -> None:
        """Takes a reservation back, and grants what may be granted now."""
        account, amount = reservation.account, reservation.amount
        self._used -= amount
        left = self._used_by[account] - amount
        if left:
            self._used_by[account] = left
        else:
            del self._used_by[account]
        self._serve()

    def _goes_after_others(self, account: Account) -> bool:
        """Whether one who comes now waits for those who wait already."""
        interactive, bulk = self._waiting
        if not interactive and not bulk:
            return False
        both = account.bulk or self._precedence.bulk_is_due
        before = (*interactive, *bulk) if both else tuple(interactive)
        return account in self._waiting[account.bulk] or any(each not in self._used_by for each in before)

    def _fits(self, account: Account, amount: int) -> bool:
        left = self.limit - self._used - amount
        own = self._used_by.get(account, 0)
        return left >= 0 and not (self._leaves_room and own and own + amount > left)

    def _grant(self, account: Account, amount: int) -> Reservation:
        self._precedence.had(account.priority, bulk_waits=bool(self._waiting[True]))
        self._used += amount
        self._used_by[account] = self._used_by.get(account, 0) + amount
        return Reservation(self, account, amount)

    def _serve(self) -> None:
        while (waiter := self._next()) is not None:
            self._take_out(waiter)
            level = self._waiting[waiter.account.bulk]
            if waiter.account in level:
                level.move_to_end(waiter.account)
            if not waiter.done():
                waiter.set_result(self._grant(waiter.account, waiter.amount))

    def _next(self) -> _Waiter | None:
        """Who may be served now: passes over those who have to give something back first themselves."""
        interactive, bulk = self._waiting
        if not interactive and not bulk:
            return None
        levels = (bulk, interactive) if self._precedence.bulk_is_due else (interactive, bulk)
        for account, waiting in (each for level in levels for each in level.items()):
            waiter = next(iter(waiting))
            if waiter.done() or self._fits(account, waiter.amount):
                return waiter
            if account not in self._used_by:
                return None
        return None

    def _take_out(self, waiter: _Waiter) -> None:
        level = self._waiting[waiter.account.bulk]
        waiting: dict[_Waiter, None] = level.get(waiter.account, OrderedDict())
        waiting.pop(waiter, None)
        if not waiting:
            level.pop(waiter.account, None)
