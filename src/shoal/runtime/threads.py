"""Threads: how many are worth having, and those that work for an event loop; the system shows their names.

Until Python 3.14 a thread's name stays inside Python; ``top -H`` and ``/proc`` show ours. A library's threads inherit
their maker's name.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from time import thread_time
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from shoal.runtime.fair_time import UrgentTime
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
Result = TypeVar("Result")

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota: Path = _QUOTA) -> int:
    """Cores that this process may keep busy: by its affinity, and by its container's CPU quota (cgroup v2)."""
    cores = len(os.sched_getaffinity(0))
    try:
        most, period = quota.read_text(encoding="ascii").split()
        return cores if most == "max" else max(1, min(cores, math.ceil(int(most) / int(period))))
    except (OSError, ValueError):
        return cores


class Threads:
    """Runs functions for coroutines.

    Owners share the threads' CPU time equally; each one's calls of a priority keep their order.

    What ``loop.run_in_executor`` does with two futures, a lock and four callbacks, this does with one future, which
    takes some 25 microseconds less of the event loop; and calls that return about the same time wake it once. A call
    that has begun can't be cancelled: a cancelled waiter goes on once the call has returned, so that whatever the call
    writes to may then be used again.
    """

    def __init__(self, count: int, name: str) -> None:
        """Starts ``count`` threads, of which the system shows the first 15 characters of ``name``."""
        self._jobs: UrgentTime[_Job] = UrgentTime()
        self._turns = threading.Lock()
        """Held for whatever touches ``_jobs``."""
        self._returns: _Returns | None = None
        self._work_to_do: SimpleQueue[bool] = SimpleQueue()
        """True for each job that was put; some were cancelled since. False ends a thread."""
        self._threads = [
            threading.Thread(target=self._work, args=(name,), name=name, daemon=True) for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Calls that wait for a thread."""
        return len(self._jobs)

    async def run(self, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        """The result of ``function``, which a thread calls; raises what it raises. Nobody's: an owner of its own."""
        return await self.run_for("", Priority.INTERACTIVE, function, *args, **kwargs)

    async def run_for(
        self, owner: str, priority: Priority, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs
    ) -> Result:
        """``run`` on behalf of ``owner``; interactive calls go before bulk ones, but for bulk's share."""
        result: Result = await self.submit(owner, priority, partial(function, *args, **kwargs))
        return result

    def submit(self, owner: str, priority: Priority, call: Callable[[], Result]) -> asyncio.Future[Result]:
        """``run_for`` without a coroutine: the future of what ``call`` returns, for callbacks."""
        loop = asyncio.get_running_loop()
        if self._returns is None or self._returns.loop is not loop:
            self._returns = _Returns(loop)
        job = _Job(self, self._returns, owner, priority, call)
        with self._turns:
            self._jobs.put(owner, job)
        self._work_to_do.put(True)
        return job

    def drop(self, job: _Job) -> None:
        """Forgets a job that was cancelled, and with it what it holds."""
        with self._turns:
            self._jobs.discard(job.owner, job)

    def close(self) -> None:
        """Ends the threads once all that was asked for is done; doesn't wait for it."""
        for _ in self._threads:
            self._work_to_do.put(False)

    def _work(self, name: str) -> None:
        _show(name)
        while self._work_to_do.get():
            with self._turns:
                turn = self._jobs.take()
            if turn is None:
                continue
            began = thread_time()
            turn.item.run()
            with self._turns:
                self._jobs.ended(turn, thread_time() - began)
            del turn  # and what the call held, while this thread waits


class _Returns:
    """What calls returned, on its way to one event loop, which is woken once for all that came until it looks."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._ended: deque[tuple[_Job, object, BaseException | None]] = deque()
        self._is_told = False

    def put(self, job: _Job, result: object, error: BaseException | None) -> None:
        """From a thread. After the append, or the loop might look before it and never be told."""
        self._ended.append((job, result, error))
        if self._is_told:
            return
        self._is_told = True
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            self.loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._is_told = False  # before the look: whoever appends from now on tells again
        while self._ended:
            job, result, error = self._ended.popleft()
            job.settle(result, error)


class _Job(asyncio.Future[Any]):
    """A call on its way through a thread. Belongs to the running event loop, but for ``run``."""

    def __init__(
        self, threads: Threads, returns: _Returns, owner: str, priority: Priority, call: Callable[[], object]
    ) -> None:
        super().__init__(loop=returns.loop)
        self.owner = owner
        self.priority = priority
        self._threads = threads
        self._returns = returns
        self._call = call
        self._claims = [None]  # taking from a list is atomic: a job begins or is cancelled, never both

    def cancel(self, msg: Any | None = None) -> bool:  # as its base has it
        """Does nothing once the call has begun."""
        if not self._claim():
            return False
        self._threads.drop(self)
        return super().cancel(msg)

    def run(self) -> None:
        """Makes the call, in a thread."""
        if not self._claim():
            return
        result, error = None, None
        try:
            result = self._call()
        except BaseException as raised:
            error = raised
        del self._call  # and what it held
        self._returns.put(self, result, error)

    def settle(self, result: object, error: BaseException | None) -> None:
        """Tells what became of the call, in the event loop."""
        if error is None:
            self.set_result(result)
        else:
            self.set_exception(error)
            self.exception()  # a waiter that was cancelled never looks at it

    def _claim(self) -> bool:
        try:
            self._claims.pop()
        except IndexError:
            return False
        return True


def make_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """A pool of up to ``threads``, of which the system shows the first 15 characters of ``name``."""
    return ThreadPoolExecutor(threads, name, initializer=_show, initargs=(name,))


def _show(name: str) -> None:
    with suppress(OSError):  # where there is no such file, it is only a name
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name, encoding="utf-8")
