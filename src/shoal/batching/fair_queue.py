"""A queue that serves its owners in turn, so that one heavy client can't starve the others."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import KeysView


@dataclass(eq=False, slots=True)
class Queued:
    """What the policy knows of a request; a driver subclasses it. Times are seconds of the policy's clock."""

    owner: str
    arrived: float
    deadline: float
    attempts: int = 0
    """Streams that broke under it."""
    priority: Priority = Priority.INTERACTIVE


class Owned(Protocol):
    """Anything that stands in a queue on somebody's behalf."""

    @property
    def owner(self) -> str:
        """On whose behalf."""
        ...


Item = TypeVar("Item", bound=Owned)


class FairQueue(Generic[Item]):
    """First in, first out for each owner; the owners in turn. All but ``pop_newest_of_longest`` are O(1) an item."""

    def __init__(self) -> None:
        self._of: dict[str, OrderedDict[Item, None]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, item: Item) -> None:
        """Puts an item at its owner's end."""
        self._of.setdefault(item.owner, OrderedDict())[item] = None
        self._size += 1

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

    def take(self, count: int) -> list[Item]:
        """Removes up to ``count`` items, one an owner and turn."""
        taken: list[Item] = []
        while len(taken) < count and self._of:
            owner = next(iter(self._of))
            items = self._of.pop(owner)
            share = count - len(taken) if not self._of else 1
            taken.extend(items.popitem(last=False)[0] for _ in range(min(share, len(items))))
            if items:
                self._of[owner] = items
        self._size -= len(taken)
        return taken

    @property
    def owners(self) -> KeysView[str]:
        """Those with items, whose turn is next first."""
        return self._of.keys()

    def ahead_of_newest(self, owner: str) -> int:
        """Entries that leave before the newest one of ``owner``, its elders included."""
        place = len(self._of.get(owner, ()))
        return sum(min(len(items), place) for items in self._of.values()) - 1 if place else self._size

    def pop_newest_of_longest(self, preferred_owner: str) -> Item:
        """Removes the newest item of the owner with most of them; a tie goes to ``preferred_owner``."""
        owner = max(self._of, key=lambda name: (len(self._of[name]), name == preferred_owner))
        item = next(reversed(self._of[owner]))
        self.discard(item)
        return item
