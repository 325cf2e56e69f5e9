"""Virtual time: what happens next, a heap of calls. What comes at the same time happens in the order of being told."""

from __future__ import annotations

import math
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable


_NEVER: Final = math.inf


class Timer:
    """A call that may be taken back."""

    __slots__ = ("_arguments", "_call")

    def __init__(self, call: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        """Prepares."""
        self._call: Callable[..., object] | None = call
        self._arguments = arguments

    def cancel(self) -> None:
        """It will not be called."""
        self._call = None

    def __call__(self) -> None:
        """Its time has come."""
        if self._call is not None:
            self._call(*self._arguments)


class Events:
    """A clock whose time is that of the event that happens: ``Clock`` and ``Timers`` of ``runtime.clock``."""

    def __init__(self) -> None:
        """It is 0 s."""
        self.time = 0.0
        self.passed = 0
        """Events that have happened."""
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._number = count()

    def at(self, time: float, call: Callable[..., object], *arguments: object) -> None:
        """Calls it then; never, where that is infinite."""
        if time != _NEVER:
            heappush(self._heap, (time, next(self._number), call, arguments))

    def until(self, end: float) -> None:
        """Lets happen what comes until ``end``, that included."""
        heap, pop = self._heap, heappop
        while heap and heap[0][0] <= end:
            self.time, _, call, arguments = pop(heap)
            self.passed += 1
            call(*arguments)

    def now(self) -> float:
        """Seconds since the beginning."""
        return self.time

    def call_at(self, when: float, call: Callable[..., object], *arguments: object) -> Timer:
        """As ``at``, for what may be taken back."""
        timer = Timer(call, arguments)
        self.at(when, timer)
        return timer

    def call_later(self, seconds: float, call: Callable[..., object], *arguments: object) -> Timer:
        """As ``call_at``, so many seconds from now."""
        return self.call_at(self.time + seconds, call, *arguments)
