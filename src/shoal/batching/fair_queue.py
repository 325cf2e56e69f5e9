"""A queue that serves its owners in turn, so that one heavy client can't starve the others."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Iterable, KeysView


@dataclass(eq=False, slots=True)
class Queued:
    """What the policy knows of a request; a driver subclasses it. Times are seconds of the policy's clock."""

    owner: str
    arrived: float
    deadline: float
    attempts: int = 0
    """Streams that broke under it."""
    priority: Priority = Priority.INTERACTIVE
    affinity: str = field(default="", kw_only=True)
    """Requests with the same text do best at the same worker; empty: anywhere."""


class Owned(Protocol):
    """Anything that stands in a queue on somebody's behalf."""

    @property
    def owner(self) -> str:
        """On whose behalf."""
        ...


Item = TypeVar("Item", bound=Owned)


class FairQueue(Generic[Item]):
    """First in, first out for each owner; the owners in turn. O(1) an item, where nothing else is said."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, OrderedDict[Item, None]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __contains__(self, item: Item) -> bool:
        return item in self._of.get(item.owner, ())

    def append(self, item: Item) -> None:
        """Puts an item at its owner's end."""
        items = self._of.get(item.owner)
        if items is None:
            items = self._of[item.owner] = OrderedDict()
        items[item] = None
        self._size += 1

    def extend(self, items: Iterable[Item]) -> None:
        """Puts each at its owner's end."""
        for item in items:
            self.append(item)

    def push_back(self, item: Item) -> None:
        """Puts an item that was taken before at its owner's head again."""
        self.append(item)
        self._of[item.owner].move_to_end(item, last=False)

    def discard(self, item: Item) -> bool:
        """Takes an item out, wherever it is; whether it was queued."""
        items = self._of.get(item.owner)
        if items is None or item not in items:
            return False
        del items[item]
        self._size -= 1
        if not items:
            del self._of[item.owner]
        return True

    def head(self) -> Item:
        """The item that is taken next; there has to be one."""
        return next(iter(next(iter(self._of.values()))))

    def take(self, count: int) -> list[Item]:
        """Removes up to ``count`` items, one an owner and turn."""
        taken: list[Item] = []
        while len(taken) < count and self._of:
            owner, items = next(iter(self._of.items()))
            if len(self._of) > 1:
                taken.append(self.take_of(owner))
                continue
            first = _first(items, count - len(taken))
            taken += first
            self._size -= len(first)
            if not items:
                del self._of[owner]
        return taken

    def take_of(self, owner: str) -> Item:
        """Removes the first item of ``owner``, who has some; it was its turn."""
        items = self._of[owner]
        item, _ = items.popitem(last=False)
        self._size -= 1
        if items:
            self._of.move_to_end(owner)
        else:
            del self._of[owner]
        return item

    @property
    def owners(self) -> KeysView[str]:
        """Those with items, whose turn is next first."""
        return self._of.keys()

    def waiting_of(self, owner: str) -> int:
        """Items of ``owner``."""
        return len(self._of.get(owner, ()))

    def ahead_of(self, place: int) -> int:
        """Items that leave before the one that is its owner's ``place``-th, its elders included. O(owners)."""
        return sum(min(len(items), place) for items in self._of.values()) - 1

    def pop_newest_of_longest(self, preferred_owner: str, count: int = 1) -> list[Item]:
        """Removes up to ``count`` items, each the newest of the owner with most of them then. O(owners), once.

        A tie goes to ``preferred_owner``.
        """
        longest = [(-len(items), owner != preferred_owner, owner) for owner, items in self._of.items()]
        heapq.heapify(longest)
        popped: list[Item] = []
        while longest and len(popped) < count:
            length, other, owner = longest[0]
            popped.append(next(reversed(self._of[owner])))
            self.discard(popped[-1])
            if length == -1:
                heapq.heappop(longest)
            else:
                heapq.heapreplace(longest, (length + 1, other, owner))
        return popped


def _first(items: OrderedDict[Item, None], count: int) -> list[Item]:
    """Removes up to ``count`` items from the front."""
    if count >= len(items):
        taken = list(items)
        items.clear()
        return taken
    return [items.popitem(last=False)[0] for _ in range(count)]
