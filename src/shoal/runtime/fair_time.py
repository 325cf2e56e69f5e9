"""Whose turn it is, so that those who compete for something get equal *time* of it, not equal turns.

Equal turns let one owner's pictures of a second each take nearly all of the time from another's of milliseconds. Here
the next turn is that of whoever has had the least time so far: start-time fair queueing, with the time measured
afterwards (Goyal, Vin and Cheng, "Start-time fair queueing", SIGCOMM 1996).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from shoal.runtime.precedence import Precedence
from shoal.runtime.priority import BULK, Priority

Item = TypeVar("Item")

_FIRST_SECONDS = 0.001
"""What the first turn of an owner is taken to cost until it is known."""
_REMEMBERED = 256
"""Owners, before those who are owed nothing are forgotten."""


@dataclass(frozen=True, slots=True)
class Turn(Generic[Item]):
    """One item's turn, from ``take`` to ``ended``."""

    owner: str
    item: Item
    charged: float
    """Seconds that its owner was charged beforehand."""


class _Account(Generic[Item]):
    """What one owner has had, and what it waits for."""

    __slots__ = ("expected", "latest", "running", "spent", "waiting")

    def __init__(self, spent: float) -> None:
        self.waiting: OrderedDict[Item, None] = OrderedDict()
        self.running = 0
        self.spent = spent
        self.expected = _FIRST_SECONDS
        self.latest = 0
        """Its last turn's number: of two who had equal time, the one who was served longer ago is next."""


class FairTime(Generic[Item]):
    """What waits for its turn, first in, first out for each owner. Not safe for threads; has no clock of its own.

    Whoever comes back after a pause starts level with the others, not ahead of them; time that it had beyond them is
    held against it until they have caught up.
    """

    def __init__(self) -> None:
        self._of: dict[str, _Account[Item]] = {}
        self._size = 0
        self._level = 0.0
        self._turns = 0

    def __len__(self) -> int:
        return self._size

    def waiting(self, owner: str) -> int:
        """How many items of ``owner`` wait."""
        account = self._of.get(owner)
        return len(account.waiting) if account else 0

    def put(self, owner: str, item: Item) -> None:
        """Puts ``item`` at the end of its owner's."""
        account = self._of.get(owner)
        if account is None:
            self._drop_settled_accounts()
            account = self._of[owner] = _Account(self._level)
        elif not account.waiting and not account.running:
            account.spent = max(account.spent, self._level)
        account.waiting[item] = None
        self._size += 1

    def discard(self, owner: str, item: Item) -> bool:
        """Takes an item out, wherever it is; whether it waited."""
        account = self._of.get(owner)
        if account is None or item not in account.waiting:
            return False
        del account.waiting[item]
        self._size -= 1
        return True

    def take(self) -> Turn[Item] | None:
        """The next item's turn; None where nothing waits."""
        candidates = [(each.spent, each.latest, owner) for owner, each in self._of.items() if each.waiting]
        if not candidates:
            return None
        spent, _, owner = min(candidates)
        account = self._of[owner]
        item, _ = account.waiting.popitem(last=False)
        self._size -= 1
        self._turns += 1
        self._level = max(self._level, spent)
        account.latest = self._turns
        account.running += 1
        account.spent += account.expected  # or several turns at once would cost as much as one
        return Turn(owner, item, account.expected)

    def ended(self, turn: Turn[Item], seconds: float) -> None:
        """``turn`` is over; it took ``seconds``."""
        account = self._of[turn.owner]
        account.running -= 1
        account.spent += seconds - turn.charged
        account.expected = seconds

    def _drop_settled_accounts(self) -> None:
        if len(self._of) >= _REMEMBERED:
            self._of = {
                owner: each
                for owner, each in self._of.items()
                if each.waiting or each.running or each.spent > self._level
            }


class Urgent(Protocol):
    """What waits and says how urgent it is."""

    @property
    def priority(self) -> Priority:
        """Its level."""
        ...


UrgentItem = TypeVar("UrgentItem", bound=Urgent)


class UrgentTime(Generic[UrgentItem]):
    """``FairTime`` for each priority: interactive items go before bulk ones, but for bulk's share of turns."""

    def __init__(self) -> None:
        self._interactive: FairTime[UrgentItem] = FairTime()
        self._bulk: FairTime[UrgentItem] = FairTime()
        self._precedence = Precedence()

    def __len__(self) -> int:
        return len(self._interactive) + len(self._bulk)

    def waiting(self, owner: str, priority: Priority) -> int:
        """How many items of ``owner`` wait with ``priority``."""
        return self._of(priority).waiting(owner)

    def put(self, owner: str, item: UrgentItem) -> None:
        """Puts ``item`` at the end of its owner's."""
        self._of(item.priority).put(owner, item)

    def discard(self, owner: str, item: UrgentItem) -> bool:
        """Takes an item out, wherever it is; whether it waited."""
        return self._of(item.priority).discard(owner, item)

    def take(self) -> Turn[UrgentItem] | None:
        """The next item's turn; None where nothing waits."""
        bulk = len(self._bulk) > 0
        priority = self._precedence.next(interactive=len(self._interactive) > 0, bulk=bulk)
        if priority is None:
            return None
        self._precedence.had(priority, bulk_waits=bulk)
        return self._of(priority).take()

    def ended(self, turn: Turn[UrgentItem], seconds: float) -> None:
        """``turn`` is over; it took ``seconds``."""
        self._of(turn.item.priority).ended(turn, seconds)

    def _of(self, priority: Priority) -> FairTime[UrgentItem]:
        return self._bulk if priority is BULK else self._interactive
