"""The deadlines of any number of entries, with one timer for all of them."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from shoal.runtime.clock import Timer, Timers

TICK_SECONDS: Final = 0.005
"""Unless told otherwise."""
_SPARE_TICKS: Final = 1024


class Dated(Protocol):
    """Anything with a deadline."""

    @property
    def deadline(self) -> float:
        """Seconds of the loop's clock."""
        ...

    def __hash__(self) -> int: ...


Entry = TypeVar("Entry", bound=Dated)


class Deadlines(Generic[Entry]):
    """Entries in buckets of a tick each, so that adding and removing one is a step in a dictionary and no timer's.

    Most are over long before their deadlines; a bucket goes with its last entry.
    """

    def __init__(
        self,
        loop: Timers,
        passed: Callable[[list[Entry]], None],
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        """Starts empty.

        Args:
            loop: Whose clock counts: an event loop, or what stands for one.
            passed: Told of all entries whose deadlines have passed, which are out by then.
            tick_seconds: A deadline is noticed up to so much later; those of one tick are told together.
        """
        self._tick_seconds = tick_seconds
        self._loop = loop
        self._passed = passed
        self._buckets: dict[int, dict[Hashable, Entry]] = {}
        self._ticks: list[int] = []
        """Those of the buckets, a heap; of some whose buckets are gone, too."""
        self._timer: Timer | None = None
        self._set_for = 0
        """The tick that the timer waits for."""

    def add(self, entries: Iterable[Entry]) -> None:
        """Watches over entries."""
        buckets = len(self._buckets)
        for entry in entries:
            tick = int(entry.deadline / self._tick_seconds) + 1
            bucket = self._buckets.get(tick)
            if bucket is None:
                bucket = self._buckets[tick] = {}
                heappush(self._ticks, tick)
            bucket[entry] = entry
        if len(self._buckets) > buckets:  # else the timer is set for one of them, or for one before
            self._set()

    def remove(self, entry: Entry) -> None:
        """Forgets an entry, if it is there."""
        tick = int(entry.deadline / self._tick_seconds) + 1
        if (bucket := self._buckets.get(tick)) is not None:
            bucket.pop(entry, None)
            if not bucket:
                del self._buckets[tick]

    def close(self) -> None:
        """Tells nobody anything any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._ticks.clear()
        self._buckets.clear()

    def _set(self) -> None:
        """The timer for the first bucket; one that is set for an earlier tick stays."""
        if len(self._ticks) > 2 * len(self._buckets) + _SPARE_TICKS:  # far deadlines, none of which was waited for
            self._ticks = sorted(self._buckets)
        while self._ticks and self._ticks[0] not in self._buckets:
            heappop(self._ticks)
        if not self._ticks or (self._timer is not None and self._set_for <= self._ticks[0]):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._set_for = self._ticks[0]
        self._timer = self._loop.call_at(self._set_for * self._tick_seconds, self._ring)

    def _ring(self) -> None:
        self._timer = None
        passed: list[Entry] = []
        while self._ticks and self._ticks[0] <= self._set_for:
            passed += self._buckets.pop(heappop(self._ticks), {}).values()
        self._set()
        if passed:
            self._passed(passed)
