"""Time-outs for thousands of waits at once, each of which costs next to nothing unless it passes."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final, Self

from shoal.runtime.deadlines import Deadlines

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

TICK_SECONDS: Final = 0.01
"""A time-out passes up to so much late: those of one tick pass together."""


class Timeouts:
    """What ``asyncio.timeout`` does, with one timer for all of them; belongs to one event loop."""

    def __init__(self) -> None:
        self._deadlines: Deadlines[Timeout] | None = None

    def within(self, seconds: float | None) -> Timeout:
        """A context manager that cancels what its task awaits after ``seconds``, and raises TimeoutError.

        None: it never does. A time-out that has passed before takes effect at the next real wait.
        """
        return Timeout(self, seconds)

    def deadlines(self, loop: asyncio.AbstractEventLoop) -> Deadlines[Timeout]:
        """Those of all that are open, on ``loop``, which is known at the first."""
        if self._deadlines is None:
            self._deadlines = Deadlines(loop, _expire, TICK_SECONDS)
        return self._deadlines


def _expire(passed: Iterable[Timeout]) -> None:
    for timeout in passed:
        timeout.expire()


class Timeout:
    """One of them; once."""

    __slots__ = ("_cancelling", "_deadlines", "_expired", "_seconds", "_task", "_timeouts", "deadline")

    def __init__(self, timeouts: Timeouts, seconds: float | None) -> None:
        self._timeouts = timeouts
        self._seconds = seconds
        self._deadlines: Deadlines[Timeout] | None = None
        self._expired = False
        self.deadline = math.inf
        """On the loop's clock."""

    def __enter__(self) -> Self:
        if self._seconds is not None:
            task = asyncio.current_task()
            assert task is not None, "a time-out ends what a task awaits"
            self._task, self._cancelling = task, task.cancelling()
            loop = asyncio.get_running_loop()
            self.deadline = loop.time() + self._seconds
            self._deadlines = self._timeouts.deadlines(loop)
            self._deadlines.add((self,))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._deadlines is not None:
            self._deadlines.remove(self)
        # As in asyncio.timeout: somebody else's cancellation stays one.
        if self._expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Its time has passed."""
        self._expired = True
        self._task.cancel()
