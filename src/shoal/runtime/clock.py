"""The time, and who tells that it has come: the event loop's, or virtual ones."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Timer(Protocol):
    """What will be called."""

    def cancel(self) -> None:
        """Never mind."""
        ...


class Timers(Protocol):
    """Calls back at a time: an event loop does."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer:
        """Calls it at ``when``, or as soon after that as it can."""
        ...


class Clock(Protocol):
    """Tells the time, and when some of it has passed."""

    def now(self) -> float:
        """Seconds since any one moment."""
        ...

    def call_later(self, seconds: float, call: Callable[..., object], *arguments: object) -> Timer:
        """Calls it after so many seconds."""
        ...


class LoopClock:
    """The running event loop's."""

    def now(self) -> float:
        """Seconds of ``time.monotonic``."""
        return monotonic()

    def call_later(self, seconds: float, call: Callable[..., object], *arguments: object) -> Timer:
        """Call it on the loop."""
        return asyncio.get_running_loop().call_later(seconds, call, *arguments)
