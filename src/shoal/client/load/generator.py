"""A load generator: a closed loop of callers, or an open loop of Poisson arrivals."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, replace
from itertools import cycle
from typing import TYPE_CHECKING, Protocol

from shoal.arrivals.processes import poisson
from shoal.client.load.record import Record
from shoal.client.load.tally import LoadResult
from shoal.errors import ConfigurationError, ShoalError
from shoal.runtime.signals import until_stop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.client.results import Image, Result
    from shoal.modelconfig.model import Task

_PROGRESS_SECONDS = 0.1


class LoadClient(Protocol):
    """What of a client the load generator uses."""

    async def infer(self, task: Task, image: Image, model: str, *, timeout_seconds: float | None = None) -> Result:
        """Calls once; the answer, or a ShoalError."""
        ...


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One of the requests that are sent in turn."""

    task: Task
    image: Image
    model: str


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """How much, and for how long."""

    concurrency: int = 32
    """Closed loop: callers, each with one request in flight."""
    rate: float | None = None
    """Open loop: mean arrivals a second. None: a closed loop."""
    duration_seconds: float = 10.0
    """The measured window."""
    warm_up_seconds: float = 2.0
    """Sent before the window, and not counted."""
    timeout_seconds: float = 30.0
    """One request's deadline, from its intended send time."""
    max_in_flight: int = 10_000
    """Open loop: more wait to be sent, and their latency grows meanwhile."""
    seed: int | None = None
    """Makes the arrivals repeatable. None: others each time."""
    record: bool = False
    """Whether each request is noted by itself, for a report."""

    def __post_init__(self) -> None:
        lengths = {"duration": self.duration_seconds, "timeout": self.timeout_seconds, "concurrency": self.concurrency}
        if self.rate is not None:
            lengths["rate"] = self.rate
        for name, value in lengths.items():
            if value <= 0:
                raise ConfigurationError(f"{name} {value:g}: expected more than 0")
        if self.warm_up_seconds < 0:
            raise ConfigurationError(f"warm-up {self.warm_up_seconds:g}: expected 0 or more")

    def share(self, index: int, processes: int) -> LoadSettings:
        """The part of process ``index`` of ``processes``: the shares add up to the whole."""
        callers, rest = divmod(self.concurrency, processes)
        return replace(
            self,
            concurrency=callers + (index < rest),
            rate=self.rate / processes if self.rate is not None else None,
            max_in_flight=max(self.max_in_flight // processes, 1),
            seed=self.seed + index if self.seed is not None else None,
        )


async def run_load(
    client: LoadClient,
    requests: Sequence[LoadRequest],
    settings: LoadSettings,
    *,
    stop: asyncio.Event | None = None,
    advance: Callable[[float], None] | None = None,
) -> LoadResult:
    """Sends ``requests`` in turn, over and over, until warm-up and window are over; then waits for what is in flight.

    In the open loop a request's latency counts from its intended send time: a service, or a generator, that stalls
    can't hide the requests that should have been sent meanwhile (no coordinated omission).

    Args:
        client: Whom to call.
        requests: At least one.
        settings: How much, and for how long.
        stop: Ends the run early with what was measured so far.
        advance: Called now and then with the seconds since the start.
    """
    return await _Run(client, requests, settings, advance or (lambda _elapsed: None)).run(stop or asyncio.Event())


class _Run:
    """One run; times are the event loop's."""

    def __init__(
        self,
        client: LoadClient,
        requests: Sequence[LoadRequest],
        settings: LoadSettings,
        advance: Callable[[float], None],
    ) -> None:
        self._client = client
        self._requests = cycle(requests)
        self._settings = settings
        self._advance = advance
        self._now = asyncio.get_running_loop().time
        self._start = self._shown = self._now()
        self._begin = self._start + settings.warm_up_seconds
        self._end = self._begin + settings.duration_seconds
        self._cpu_at_begin: float | None = None
        self._result = LoadResult(record=Record() if settings.record else None)

    async def run(self, stop: asyncio.Event) -> LoadResult:
        load = asyncio.create_task(self._closed() if self._settings.rate is None else self._open(self._settings.rate))
        window = asyncio.create_task(self._window())
        await until_stop(stop, load)
        if not load.done():
            self._finish()
        for task in (load, window):
            task.cancel()
        failures = await asyncio.gather(load, window, return_exceptions=True)
        for failure in failures:
            if isinstance(failure, Exception):
                raise failure
        self._finish()
        return self._result

    async def _window(self) -> None:
        await asyncio.sleep(self._begin - self._now())
        self._cpu_at_begin = time.process_time()
        await asyncio.sleep(self._end - self._now())
        self._finish()

    def _finish(self) -> None:
        """Closes the window; the first call counts."""
        if self._result.duration_seconds or self._cpu_at_begin is None:
            return
        self._end = min(self._end, self._now())
        self._result.duration_seconds = self._end - self._begin
        self._result.cpu_seconds = time.process_time() - self._cpu_at_begin

    async def _closed(self) -> None:
        async with asyncio.TaskGroup() as callers:
            for _ in range(self._settings.concurrency):
                callers.create_task(self._caller())

    async def _caller(self) -> None:
        while (now := self._now()) < self._end:
            await self._send(now)

    async def _open(self, rate: float) -> None:
        free = asyncio.Semaphore(self._settings.max_in_flight)

        async def one(intended: float) -> None:
            try:
                await self._send(intended)
            finally:
                free.release()

        # The seed makes runs comparable; nothing here is a secret.
        source = random.Random(self._settings.seed)
        async with asyncio.TaskGroup() as arrivals:
            for arrival in poisson(rate, source):
                intended = self._start + arrival
                if intended >= self._end:
                    return
                await asyncio.sleep(max(intended - self._now(), 0))
                await free.acquire()
                arrivals.create_task(one(intended))

    async def _send(self, intended: float) -> None:
        request = next(self._requests)
        sent = self._now()
        left = intended + self._settings.timeout_seconds - sent
        try:
            result = await self._call(request, left)
        except ShoalError as error:
            if intended >= self._begin:
                self._result.add_error(error, self._now() - self._begin)
            await asyncio.sleep(0)  # an error that needed no waiting must not keep the loop from others
            return
        finished = self._now()
        self._show(finished)
        if self._begin <= finished < self._end:
            self._result.arrived(finished - self._begin)
        if intended >= self._begin:
            self._result.add(finished - intended, sent - intended, result.timing, finished - self._begin)

    async def _call(self, request: LoadRequest, left: float) -> Result:
        return await self._client.infer(request.task, request.image, request.model, timeout_seconds=left)

    def _show(self, now: float) -> None:
        if now - self._shown >= _PROGRESS_SECONDS:
            self._shown = now
            self._advance(now - self._start)
