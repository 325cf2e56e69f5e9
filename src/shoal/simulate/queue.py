"""One queue under virtual time: the real policy, workers whose engines follow a cost curve, and no clock.

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
from shoal.batching.messages import bulk_part
from shoal.batching.turns import Order
from shoal.engine.slots import PREFETCHED
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.batcher.policy import Decision
    from shoal.modelconfig.batching import BatchingSettings
    from shoal.simulate.curve import CostCurve


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


class Worker:
    """Hands closed batches to its engine in a real worker's turns; the engine executes them in the order of coming."""

    def __init__(self, name: str, instances: int, *, levels: bool) -> None:
        """``levels``: whether it knows priorities; the first to come is first in one that doesn't."""
        self.name = name
        self.executing = 0
        self._instances = instances
        self._levels = levels
        self._order = Order(instances, PREFETCHED)
        self._asked = count()
        self._waiting: dict[int, tuple[str, Batch]] = {}
        self._handed: deque[tuple[str, Batch]] = deque()

    def ask(self, stream: str, batch: Batch) -> None:
        """The batch on ``stream`` is ready."""
        number = next(self._asked)
        self._waiting[number] = stream, batch
        self._order.ask(number, self._level(batch), bulk_part(request.priority for request in batch.requests))

    def next(self) -> tuple[str, Batch] | None:
        """What executes now."""
        while (number := self._order.begin()) is not None:
            self._handed.append(self._waiting.pop(number))
        if not self._handed or self.executing == self._instances:
            return None
        self.executing += 1
        return self._handed.popleft()

    def end(self, batch: Batch) -> None:
        """It was executed."""
        self.executing -= 1
        self._order.end(self._level(batch))

    def _level(self, batch: Batch) -> Priority:
        return batch.priority if self._levels else Priority.INTERACTIVE


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
        late_seconds: float = 0.0,
        levels: bool = True,
        tells: bool = True,
        named: bool = True,
        takes: Callable[[str, float, float], float] = lambda _, __, seconds: seconds,
    ) -> None:
        """All streams are parked, and all permits granted.

        Args:
            settings: The model's.
            curve: Of an engine's instance.
            workers: How many.
            prepare_seconds: What fetching and decoding take, of each item.
            path_seconds: From batcher to worker, and as long again back.
            noise: Batches, and what prepares items, take up to so much longer, as a share.
            seed: Of arrivals, noise and lateness.
            late_seconds: The policy's timer is late by up to so much.
            levels: Whether workers know priorities.
            tells: Whether workers tell how long batches were at the engine, which older ones don't.
            named: Whether workers tell their names.
            takes: Given a worker's name, the time, and what the curve says of a batch that begins then: its seconds.
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
        self._late, self._tells, self._takes = late_seconds, tells, takes
        self._random = random.Random(seed)  # no secret
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._wake_at = math.inf
        self._open: dict[str, Batch] = {}
        self._closed_loops: dict[str, Load] = {}
        self._named = named
        instances = settings.instance_count
        members = [Worker(f"w{number:02}", instances, levels=levels) for number in range(workers)]
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
                    batch.ready = max(batch.ready, self.now + self._path + self._prepare * self._longer())
                case Close(stream, _, reason):
                    batch = self._open.pop(stream)
                    self.reasons.append(reason)
                    batch.ready = max(batch.ready, self.now + self._path)
                    self._at(batch.ready, partial(self._queue, stream, batch))
                case Reject():
                    self.rejected.append(decision)
        if self.policy.wake_at < self._wake_at:
            self._wake_at = self.policy.wake_at
            late = self._late * self._random.random() if self._late else 0.0
            self._at(self._wake_at + late, partial(self._wake, self._wake_at))

    def _wake(self, at: float) -> None:
        if at == self._wake_at:
            self._wake_at = math.inf
            self._do(self.policy.tick(self.now))

    def _queue(self, stream: str, batch: Batch) -> None:
        worker, _ = self._streams[stream]
        worker.ask(stream, batch)
        self._execute(worker)

    def _execute(self, worker: Worker) -> None:
        while following := worker.next():
            stream, batch = following
            usual = self._curve.seconds(len(batch.requests)) * self._longer()
            seconds = self._takes(worker.name, self.now, usual)
            batch.began, batch.ended = self.now, self.now + seconds
            self.busy[worker.name] += seconds
            self._at(batch.ended, partial(self._executed, worker, stream, batch))

    def _executed(self, worker: Worker, stream: str, batch: Batch) -> None:
        worker.end(batch)
        self._execute(worker)
        self._at(self.now + self._path, partial(self._answer, stream, batch))

    def _answer(self, stream: str, batch: Batch) -> None:
        self.batches.append(batch)
        self.answered += ((request, self.now) for request in batch.requests)
        self.policy.executed(self.now, stream, batch.ended - batch.ready if self._tells else 0.0)
        for name, load in self._closed_loops.items():
            if number := sum(request.owner == name for request in batch.requests):
                self.arrive(number, load, name)
        self._permit(stream)

    def _longer(self) -> float:
        return 1 + self._noise * self._random.random() if self._noise else 1.0

    def _permit(self, stream: str) -> None:
        worker, priority = self._streams[stream]
        self._do(self.policy.permitted(self.now, stream, worker.name if self._named else "", priority))
