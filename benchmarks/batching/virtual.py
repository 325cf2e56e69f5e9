"""A service under virtual time: the real policy, workers whose engines follow a cost curve, and no clock.

What it says of batches, engine seconds and waits is a calculation and no measurement: there are no processes, no
networks and no timers that are late, but for the delays that it is told.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from shoal.batcher.policy import BatchingPolicy, Close, Reject, Send
from shoal.batching.fair_queue import Queued
from shoal.runtime.precedence import BULK_SHARE
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.batching.curve import CostCurve
    from shoal.batcher.policy import Decision
    from shoal.modelconfig.batching import BatchingSettings


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of one kind."""

    rate: float
    """A second, in a Poisson process; where ``at_once`` is more than 1, of groups."""
    priority: Priority = Priority.INTERACTIVE
    at_once: int = 1
    in_flight: int = 0
    """Not 0: so many are kept in flight from the start, whatever the rate."""
    owner: str = "a"
    timeout: float = math.inf


@dataclass(eq=False, slots=True)
class Batch:
    """One, as its worker sees it."""

    priority: Priority
    requests: list[Queued] = field(default_factory=list)
    ready: float = 0.0
    """When its last picture is decoded."""
    began: float = 0.0
    ended: float = 0.0


@dataclass(slots=True)
class Worker:
    """Runs closed batches, interactive ones first but for bulk's share."""

    name: str
    share: int
    waiting: dict[Priority, deque[tuple[str, Batch]]] = field(
        default_factory=lambda: {priority: deque() for priority in Priority}
    )
    executing: int = 0
    passed: int = 0
    """Interactive turns while bulk waited."""

    def next(self) -> tuple[str, Batch] | None:
        """Whose turn it is."""
        interactive, bulk = self.waiting[Priority.INTERACTIVE], self.waiting[Priority.BULK]
        due = self.passed >= self.share - 1
        if not self.share and bulk and interactive:
            due = bulk[0][1].ready < interactive[0][1].ready
        if bulk and (not interactive or due):
            self.passed = 0
            return bulk.popleft()
        self.passed = self.passed + 1 if bulk else 0
        return interactive.popleft() if interactive else None


class VirtualService:
    """One queue's policy and its workers."""

    def __init__(
        self,
        settings: BatchingSettings,
        curve: CostCurve,
        workers: int = 1,
        *,
        prepare_seconds: float = 0.0,
        path_seconds: float = 0.0,
        noise: float = 0.0,
        seed: int = 1,
        named: bool = True,
        share: int = BULK_SHARE,
    ) -> None:
        """All streams are parked, and all permits granted.

        Args:
            settings: The model's.
            curve: Of an engine's instance.
            workers: How many.
            prepare_seconds: What fetching and decoding take, of each item.
            path_seconds: From batcher to worker, and as long again back.
            noise: Batches take up to so much longer, as a share.
            seed: Of arrivals and noise.
            named: Whether workers tell their names.
            share: While both wait, an engine's turn of so many is bulk's; 0: the first to come is first, as in workers
                that know no priorities.
        """
        self.now = 0.0
        self.arrivals = 0
        self.answered: list[tuple[Queued, float]] = []
        """With the time of each answer."""
        self.rejected: list[Reject[Queued]] = []
        self.batches: list[Batch] = []
        """Executed ones."""
        self.reasons: list[str] = []
        self.policy: BatchingPolicy[str, Queued] = BatchingPolicy(settings)
        self._settings = settings
        self._curve = curve
        self._prepare, self._path, self._noise = prepare_seconds, path_seconds, noise
        self._random = random.Random(seed)  # no secret
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._wake_at = math.inf
        self._open: dict[str, Batch] = {}
        self._closed_loops: dict[str, Load] = {}
        self._named = named
        members = [Worker(f"w{number:02}", share) for number in range(workers)]
        self.busy = {worker.name: 0.0 for worker in members}
        """Engine seconds a worker."""
        self._streams = {
            f"{worker.name}-{priority}-{index}": (worker, priority)
            for index in range(settings.instance_count + 1)
            for worker in members
            for priority in Priority
        }
        for stream in self._streams:
            self._permit(stream)

    def run(self, seconds: float, loads: Sequence[Load]) -> None:
        """Offers the loads for so long; what is in flight then is answered, too."""
        end = self.now + seconds
        for number, load in enumerate(loads):
            if load.in_flight:
                name = f"{load.owner}-{number}"
                self._closed_loops[name] = load
                self._at(self.now, partial(self.arrive, load.in_flight, load, name))
            else:
                self._at(self.now + self._gap(load), partial(self._next_of, load, end))
        self._until(end)
        self._closed_loops.clear()
        self._until(math.inf)

    def arrive(self, number: int, load: Load, owner: str = "") -> None:
        """So many requests, in one message."""
        requests = [
            Queued(owner or load.owner, self.now, self.now + load.timeout, priority=load.priority)
            for _ in range(number)
        ]
        self.arrivals += number
        self._do(self.policy.arrived(self.now, requests))

    def latencies(self, priority: Priority, since: float = 0.0) -> list[float]:
        """Seconds, of all that came after ``since``, in order of size."""
        return sorted(
            at - request.arrived
            for request, at in self.answered
            if request.priority is priority and request.arrived >= since
        )

    # Events.

    def _next_of(self, load: Load, end: float) -> None:
        if self.now < end:
            self.arrive(load.at_once, load)
            self._at(self.now + self._gap(load), partial(self._next_of, load, end))

    def _gap(self, load: Load) -> float:
        return self._random.expovariate(load.rate)

    def _at(self, time: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), call))

    def _until(self, end: float) -> None:
        while self._events and self._events[0][0] <= end:
            self.now, _, call = heapq.heappop(self._events)
            call()

    def _do(self, decisions: Sequence[Decision[str, Queued]]) -> None:
        for decision in decisions:
            match decision:
                case Send(stream, requests):
                    batch = self._open.setdefault(stream, Batch(self._streams[stream][1]))
                    batch.requests += requests
                    batch.ready = self.now + self._path + self._prepare
                case Close(stream, _, reason):
                    batch = self._open.pop(stream)
                    self.reasons.append(reason)
                    ready = max(batch.ready, self.now + self._path)
                    self._at(ready, partial(self._queue, stream, batch))
                case Reject():
                    self.rejected.append(decision)
        if self.policy.wake_at < self._wake_at:
            self._wake_at = self.policy.wake_at
            self._at(self._wake_at, partial(self._wake, self._wake_at))

    def _wake(self, at: float) -> None:
        if at == self._wake_at:
            self._wake_at = math.inf
            self._do(self.policy.tick(self.now))

    def _queue(self, stream: str, batch: Batch) -> None:
        worker, _ = self._streams[stream]
        worker.waiting[batch.priority].append((stream, batch))
        self._execute(worker)

    def _execute(self, worker: Worker) -> None:
        while worker.executing < self._settings.instance_count and (following := worker.next()):
            stream, batch = following
            worker.executing += 1
            seconds = self._curve.seconds(len(batch.requests)) * (1 + self._noise * self._random.random())
            batch.began, batch.ended = self.now, self.now + seconds
            self.busy[worker.name] += seconds
            self._at(batch.ended, partial(self._executed, worker, stream, batch))

    def _executed(self, worker: Worker, stream: str, batch: Batch) -> None:
        worker.executing -= 1
        self._execute(worker)
        self._at(self.now + self._path, partial(self._answer, stream, batch))

    def _answer(self, stream: str, batch: Batch) -> None:
        self.batches.append(batch)
        self.answered += ((request, self.now) for request in batch.requests)
        self.policy.executed(self.now, stream)
        for name, load in self._closed_loops.items():
            if number := sum(request.owner == name for request in batch.requests):
                self.arrive(number, load, name)
        self._permit(stream)

    def _permit(self, stream: str) -> None:
        worker, priority = self._streams[stream]
        self._do(self.policy.permitted(self.now, stream, worker.name if self._named else "", priority))
