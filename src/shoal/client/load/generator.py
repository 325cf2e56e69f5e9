"""A load generator: a closed loop of callers, or an open loop of arrivals: Poisson, in bursts, or of a trace."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from shoal.arrivals import trace
from shoal.arrivals.processes import check_variation, gamma
from shoal.client.load.pipeline_tally import PipelineTally
from shoal.client.load.record import Record
from shoal.client.load.tally import LoadResult
from shoal.errors import ConfigurationError, ShoalError
from shoal.runtime.signals import until_stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from shoal.client.findings import Analysis
    from shoal.client.results import Image, Result, Timing
    from shoal.modelconfig.model import Task

ClientT = TypeVar("ClientT")
ClientT_contra = TypeVar("ClientT_contra", contravariant=True)

_PROGRESS_SECONDS = 0.1


class LoadClient(Protocol):
    """What of a client the load generator uses."""

    async def infer(self, task: Task, image: Image, model: str, *, timeout_seconds: float | None = None) -> Result:
        """Calls once; the answer, or a ShoalError."""
        ...


class PipelineClient(Protocol):
    """What of a client the load generator uses for a pipeline."""

    async def analyze(self, image: Image, pipeline: str, *, timeout_seconds: float | None = None) -> Analysis:
        """Calls once; the answer, or a ShoalError."""
        ...


class Request(Protocol[ClientT_contra]):
    """One of the requests that are sent in turn."""

    @property
    def model(self) -> str:
        """Whom it is for."""
        ...

    async def send(self, client: ClientT_contra, model: str, timeout_seconds: float) -> Timing | Analysis:
        """Calls ``model`` once; what the answer tells, or a ShoalError."""
        ...


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """A ``Request`` to a model."""

    task: Task
    image: Image
    model: str

    async def send(self, client: LoadClient, model: str, timeout_seconds: float) -> Timing:
        """See ``Request``."""
        return (await client.infer(self.task, self.image, model, timeout_seconds=timeout_seconds)).timing


@dataclass(frozen=True, slots=True)
class PipelineRequest:
    """A ``Request`` to a pipeline."""

    image: Image
    model: str
    """The pipeline's name."""

    async def send(self, client: PipelineClient, model: str, timeout_seconds: float) -> Analysis:
        """See ``Request``."""
        return await client.analyze(self.image, model, timeout_seconds=timeout_seconds)


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """How much, and for how long."""

    concurrency: int = 32
    """Closed loop: callers, each with one request in flight."""
    rate: float | None = None
    """Open loop: mean arrivals a second. None: a closed loop."""
    burstiness: float = 1.0
    """Open loop: coefficient of variation of the gaps; 1 is Poisson."""
    trace: Path | None = None
    """Open loop: a file whose arrivals are played, instead of ones at a rate; ``rate`` is its mean."""
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
    part: int = 0
    parts: int = 1
    """Open loop: of the arrivals, this process sends each ``parts``-th from number ``part`` on."""

    def __post_init__(self) -> None:
        lengths = {"duration": self.duration_seconds, "timeout": self.timeout_seconds, "concurrency": self.concurrency}
        if self.rate is not None:
            lengths["rate"] = self.rate
        for name, value in lengths.items():
            if value <= 0:
                raise ConfigurationError(f"{name} {value:g}: expected more than 0")
        if self.warm_up_seconds < 0:
            raise ConfigurationError(f"warm-up {self.warm_up_seconds:g}: expected 0 or more")
        check_variation(self.burstiness)

    def share(self, index: int, processes: int) -> LoadSettings:
        """The part of process ``index`` of ``processes``: the shares add up to the whole, if there is a seed."""
        callers, rest = divmod(self.concurrency, processes)
        return replace(
            self,
            concurrency=callers + (index < rest),
            max_in_flight=max(self.max_in_flight // processes, 1),
            part=index,
            parts=processes,
        )

    @property
    def open_loop(self) -> bool:
        """Whether requests leave when they should, rather than when answers come."""
        return self.rate is not None or self.trace is not None

    def arrivals(self) -> Iterator[tuple[float, str | None]]:
        """Open loop: when this process sends, in seconds from the start, and for which model, where a trace says so."""
        every: Iterator[tuple[float, str | None]]
        if self.trace is not None:
            every = ((arrival.time, arrival.model) for arrival in trace.read(self.trace))
        else:
            # The seed makes runs comparable; nothing here is a secret.
            times = gamma(self.rate or 0.0, self.burstiness, random.Random(self.seed))
            every = ((time, None) for time in times)
        return islice(every, self.part, None, self.parts)


async def run_load(
    client: ClientT,
    requests: Sequence[Request[ClientT]],
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


class _Run(Generic[ClientT]):
    """One run; times are the event loop's."""

    def __init__(
        self,
        client: ClientT,
        requests: Sequence[Request[ClientT]],
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
        self._result = LoadResult(
            record=Record() if settings.record else None,
            pipeline=PipelineTally() if isinstance(requests[0], PipelineRequest) else None,
        )

    async def run(self, stop: asyncio.Event) -> LoadResult:
        settings = self._settings
        load = asyncio.create_task(self._open() if settings.open_loop else self._closed())
        window = asyncio.create_task(self._window())
        await until_stop(stop, load)
        if not load.done():
            self._result.interrupted = True
            self._finish()
        for task in (load, window):
            task.cancel()
        failures = await asyncio.gather(load, window, return_exceptions=True)
        for failure in failures:
            if isinstance(failure, ExceptionGroup):  # what ended the arrivals, or the first request
                raise failure.exceptions[0]
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

    async def _open(self) -> None:
        free = asyncio.Semaphore(self._settings.max_in_flight)

        async def one(intended: float, model: str | None) -> None:
            try:
                await self._send(intended, model)
            finally:
                free.release()

        async with asyncio.TaskGroup() as arrivals:
            for arrival, model in self._settings.arrivals():
                intended = self._start + arrival
                if intended >= self._end:
                    break
                await asyncio.sleep(max(intended - self._now(), 0))
                await free.acquire()
                arrivals.create_task(one(intended, model))
            await asyncio.sleep(self._end - self._now())  # a window in which nothing more comes is as long as any

    async def _send(self, intended: float, model: str | None = None) -> None:
        """Sends the next request: for its own model, or another."""
        request = next(self._requests)
        sent = self._now()
        left = intended + self._settings.timeout_seconds - sent
        try:
            told = await request.send(self._client, model or request.model, left)
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
            self._result.add(finished - intended, sent - intended, told, finished - self._begin)

    def _show(self, now: float) -> None:
        if now - self._shown >= _PROGRESS_SECONDS:
            self._shown = now
            self._advance(now - self._start)
