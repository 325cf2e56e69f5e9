"""Time-outs for thousands of waits at once, each of which costs next to nothing unless it passes."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

TICK_SECONDS: Final = 0.01
"""A time-out passes up to so much late: those of one tick share a timer."""


class Timeouts:
    """What ``asyncio.timeout`` does, with a timer a tick in place of one a wait; belongs to one event loop."""

    def __init__(self) -> None:
        self._ticks: dict[int, _Tick] = {}

    def within(self, seconds: float | None) -> Timeout:
        """A context manager that cancels what its task awaits after ``seconds``, and raises TimeoutError.

        None: it never does. A time-out that has passed before takes effect at the next real wait.
        """
        return Timeout(self, seconds)

    def put(self, timeout: Timeout, seconds: float) -> _Tick:
        """Has ``timeout`` pass after ``seconds``."""
        loop = asyncio.get_running_loop()
        number = math.ceil((loop.time() + seconds) / TICK_SECONDS)
        tick = self._ticks.get(number)
        if tick is None:
            timer = loop.call_at(number * TICK_SECONDS, self._pass, number)
            tick = self._ticks[number] = _Tick(number, timer)
        tick.timeouts[timeout] = None
        return tick

    def drop(self, tick: _Tick, timeout: Timeout) -> None:
        """``timeout`` is of no interest any more."""
        if tick.timeouts.pop(timeout, self) is None and not tick.timeouts:
            tick.timer.cancel()
            del self._ticks[tick.number]

    def _pass(self, number: int) -> None:
        tick = self._ticks.pop(number)
        timeouts, tick.timeouts = tick.timeouts, {}
        for timeout in timeouts:
            timeout.expire()


class _Tick:
    __slots__ = ("number", "timeouts", "timer")

    def __init__(self, number: int, timer: asyncio.TimerHandle) -> None:
        self.number = number
        self.timer = timer
        self.timeouts: dict[Timeout, None] = {}


class Timeout:
    """One of them; once."""

    __slots__ = ("_cancelling", "_expired", "_seconds", "_task", "_tick", "_timeouts")

    def __init__(self, timeouts: Timeouts, seconds: float | None) -> None:
        self._timeouts = timeouts
        self._seconds = seconds
        self._tick: _Tick | None = None
        self._expired = False

    def __enter__(self) -> Self:
        if self._seconds is not None:
            task = asyncio.current_task()
            assert task is not None, "a time-out ends what a task awaits"
            self._task, self._cancelling = task, task.cancelling()
            self._tick = self._timeouts.put(self, self._seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tick is not None:
            self._timeouts.drop(self._tick, self)
        # As in asyncio.timeout: somebody else's cancellation stays one.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Its time has passed."""
        self._expired = True
        self._task.cancel()
