"""Bytes of requests that a batcher holds at once, shared among owners."""

from __future__ import annotations

from shoal.errors import Overloaded

MAX_HELD_BYTES = 256 * 2**20
"""Held at once by all requests that wait or are at a worker, of every owner."""
REQUEST_BYTES = 1024
"""What a request takes beside its message."""


class HeldBytes:
    """Nobody gets more than what is left free afterwards: one alone has at most a half, each of two in turn a third.

    So half of what is left is there for whoever comes next, whatever the others do (Choudhury and Hahne, "Dynamic queue
    length thresholds", 1998, with a factor of 1).
    """

    def __init__(self, limit: int = MAX_HELD_BYTES) -> None:
        self._free = limit
        self._held: dict[str, int] = {}

    def take(self, owner: str, size: int, requests: int = 1) -> None:
        """Counts ``size`` bytes of the messages of so many requests.

        Raises:
            Overloaded: the owner holds its share already.
        """
        size += requests * REQUEST_BYTES
        held = self._held.get(owner, 0) + size
        if held > self._free - size:
            raise Overloaded(f"requests of {held >> 20} MiB wait already; try again later")
        self._held[owner] = held
        self._free -= size

    def give_back(self, owner: str, size: int, requests: int = 1) -> None:
        """The messages are answered."""
        size += requests * REQUEST_BYTES
        self._free += size
        held = self._held[owner] - size
        if held:
            self._held[owner] = held
        else:
            del self._held[owner]
