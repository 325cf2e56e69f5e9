"""A device that executes batches, of several models at once where they share it."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.simulate.events import Events

_DONE = 1e-12
"""Seconds of work: less is rounding."""


@dataclass(eq=False, slots=True)
class Work:
    """A batch that executes."""

    seconds: float
    """That it needs yet, of a device of its own."""
    speed: Callable[[int], float]
    """Of its model: see ``EngineCosts.speed``."""
    done: Callable[[], object]


class Device:
    """Shared by all that executes on it, in equal parts: of k batches each goes on at ``speed(k) / k``."""

    def __init__(self, events: Events) -> None:
        """Idle."""
        self._events = events
        self._running: list[Work] = []
        self._since = 0.0
        """When what they need yet was last counted."""
        self._busy = 0.0
        self._version = 0

    def busy(self) -> float:
        """Seconds for which anything executed, until now."""
        return self._busy + (self._events.time - self._since if self._running else 0.0)

    def begin(self, work: Work) -> None:
        """Executes it from now on."""
        self._go_on()
        self._running.append(work)
        self._plan()

    def stop(self) -> None:
        """It is gone: nothing that executes is ever done."""
        self._go_on()
        self._running.clear()
        self._version += 1

    def _go_on(self) -> None:
        """Counts what was done since the last time."""
        now, running = self._events.time, self._running
        if running and (passed := now - self._since):
            self._busy += passed
            for work in running:
                work.seconds -= passed * work.speed(len(running)) / len(running)
        self._since = now

    def _plan(self) -> None:
        self._version += 1
        running = self._running
        if running:
            k = len(running)
            first = min(work.seconds * k / work.speed(k) for work in running)
            self._events.at(self._events.time + max(0.0, first), self._ended, self._version)

    def _ended(self, version: int) -> None:
        """The first of them is done, unless another one began meanwhile."""
        if version != self._version:
            return
        self._go_on()
        least = min((work.seconds for work in self._running), default=math.inf)
        done = [work for work in self._running if work.seconds <= max(least, _DONE)]
        self._running = [work for work in self._running if work.seconds > max(least, _DONE)]
        self._plan()
        for work in done:
            work.done()


class Instances:
    """A model's at one engine: so many of its batches execute at once, further ones wait, first come, first served."""

    def __init__(self, number: int) -> None:
        """All free."""
        self._free = number
        self._waiting: deque[Callable[[], object]] = deque()

    def ask(self, begin: Callable[[], object]) -> None:
        """One more wants to begin; ``begin`` is called when it may, perhaps at once."""
        self._waiting.append(begin)
        self.go_on()

    def free(self) -> None:
        """One has ended. Whoever waits begins with ``go_on``."""
        self._free += 1

    def go_on(self) -> None:
        """Those begin that may."""
        while self._waiting and self._free:
            self._free -= 1
            self._waiting.popleft()()


class OwnDevices:
    """One for each batch: they never meet."""

    def __init__(self, events: Events) -> None:
        """Idle."""
        self._events = events
        self._running = 0
        self._since = self._busy = 0.0
        self._gone = False

    def busy(self) -> float:
        """Seconds of all of them together, until now."""
        return self._busy + self._running * (self._events.time - self._since)

    def begin(self, work: Work) -> None:
        """Executes it from now on."""
        self._count(+1)
        self._events.at(self._events.time + work.seconds, self._ended, work)

    def stop(self) -> None:
        """They are gone: nothing that executes is ever done."""
        self._count(-self._running)
        self._gone = True

    def _ended(self, work: Work) -> None:
        if not self._gone:
            self._count(-1)
            work.done()

    def _count(self, more: int) -> None:
        self._busy = self.busy()
        self._since = self._events.time
        self._running += more
