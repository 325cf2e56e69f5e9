"""A function over a whole batch, run on at most so many batches at once."""

from __future__ import annotations

import asyncio
import inspect
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.batching.turns import Turns
from shoal.runtime.priority import Priority
from shoal.runtime.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Outcome = list[Any] | BaseException
    """What the function answered, or what it raised."""

CANCELLED = "the function cancelled itself"


class Execution(NamedTuple):
    """One run of the function."""

    outcome: Outcome
    waited: float
    """Seconds until an instance was free."""
    seconds: float
    """Seconds that it took."""


class Instances:
    """Runs a coroutine function on the event loop, and any other in a thread, so that the event loop lives."""

    def __init__(self, function: Callable[[Any], Any], count: int, name: str) -> None:
        """Prepares; threads start with the first batch.

        Args:
            function: Takes a sequence, and answers an iterable.
            count: How many run at once.
            name: What the system calls the threads.
        """
        self._function = function
        self._turns = Turns(count)
        self._on_loop = _is_coroutine(function)
        self._start_threads = partial(Threads, count, name)
        self._threads: Threads | None = None
        self._running: dict[asyncio.Future[Outcome], Priority] = {}

    @property
    def busy(self) -> bool:
        """Whether anything runs; a thread goes on when its batch is given up."""
        return bool(self._running)

    async def run(
        self, choose: Callable[[], Sequence[Any]], priority: Priority = Priority.INTERACTIVE, riding: float = 0.0
    ) -> Execution | None:
        """Waits for a free instance, then runs the function on what ``choose`` answers; None if that is nothing.

        Of those who wait, interactive batches go before bulk ones, but for bulk's share of turns, to which counts what
        is ``riding`` in the batch (``Turns.begin``).

        Cancelling it cancels a coroutine; a thread can't be stopped, and keeps its instance until it ends.
        """
        asked = monotonic()
        await self._turns.begin(priority, riding=riding)
        try:
            batch = choose()
        except BaseException:
            self._turns.end(priority)
            raise
        if not batch:
            self._turns.end(priority)
            return None
        started = monotonic()
        running = self._start(batch, priority)
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            if self._on_loop:
                running.cancel()
            raise
        outcome = RuntimeError(CANCELLED) if running.cancelled() else running.result()
        return Execution(outcome, started - asked, monotonic() - started)

    def close(self) -> None:
        """Lets threads end once they have nothing to do."""
        if self._threads is not None:
            self._threads.close()

    def _start(self, batch: Sequence[Any], priority: Priority) -> asyncio.Future[Outcome]:
        running = asyncio.get_running_loop().create_task(self._await(batch) if self._on_loop else self._thread(batch))
        self._running[running] = priority
        running.add_done_callback(self._ended)
        return running

    def _ended(self, running: asyncio.Future[Outcome]) -> None:
        self._turns.end(self._running.pop(running))

    async def _await(self, batch: Sequence[Any]) -> Outcome:
        try:
            return list(await self._function(batch))
        except Exception as error:
            return error

    async def _thread(self, batch: Sequence[Any]) -> Outcome:
        if self._threads is None:
            self._threads = self._start_threads()
        return await self._threads.run(self._call, batch)

    def _call(self, batch: Sequence[Any]) -> Outcome:
        try:
            return list(self._function(batch))
        except BaseException as error:  # a future can't carry StopIteration, and SystemExit would end the loop
            return error


def _is_coroutine(function: Callable[[Any], Any]) -> bool:
    """Also where it is an object that is called."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
