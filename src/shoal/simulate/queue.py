"""One queue and its workers: what the whole service of ``simulate`` is made of, for whoever looks at the policy alone.

What it says of batches, engine seconds and waits is a calculation and no measurement: there are no processes, no
networks and no timers that are late, but for the delays that it is told.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.batcher.policy import Reject
from shoal.runtime.priority import Priority
from shoal.simulate.events import Events
from shoal.simulate.policy_queue import PolicyQueue
from shoal.simulate.replica import Batch, Replica, Request, ServedModel
from shoal.simulate.scenario import SimulatedModel
from shoal.simulate.spreads import Uniform

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.errors import ShoalError
    from shoal.modelconfig.batching import BatchingSettings
    from shoal.simulate.scenario import EngineCosts


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


class VirtualService:
    """One queue's policy and its workers. Implements ``policy_queue.Ways``."""

    def __init__(
        self,
        settings: BatchingSettings,
        costs: EngineCosts,
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
        takes: Callable[[str, Batch, float], float] = lambda _, __, seconds: seconds,
    ) -> None:
        """All streams are parked, and all permits granted.

        Args:
            settings: The model's.
            costs: Of an engine's instance, each on a device of its own.
            workers: How many.
            prepare_seconds: What fetching and decoding take, of each item.
            path_seconds: From batcher to worker, and as long again back.
            noise: Batches, and what prepares items, take up to so much longer, as a share.
            seed: Of arrivals, noise and lateness.
            late_seconds: The policy's timer is late by up to so much.
            levels: Whether workers know priorities.
            tells: Whether workers tell how long batches were at the engine and how large, which older ones don't.
            named: Whether workers tell their names.
            takes: Given a worker's name, a batch that begins, and what the costs say of it: its seconds.
        """
        self.arrivals = 0
        self.answered: list[tuple[Request, float]] = []
        """With the time of each answer."""
        self.rejected: list[Reject[Request]] = []
        self.batches: list[Batch] = []
        """Executed ones."""
        self.path, self.slower_store, self.tells, self.named = path_seconds, 1.0, tells, named
        self._late = late_seconds
        self._random = random.Random(seed)  # no secret
        self._events = Events()
        self._closed_loops: dict[str, Load] = {}
        prepare = Uniform(prepare_seconds, prepare_seconds * (1 + noise))
        model = SimulatedModel("model", settings, costs, prepare, Uniform(1.0, 1 + noise) if noise else None)
        self._queue = PolicyQueue(model, self._events, self, _Listener(self), self._random)
        self.policy = self._queue.policy
        self.reasons = self._queue.reasons = []
        self._replicas = [Replica(f"w{number:02}", self._events, shared=False) for number in range(workers)]
        for replica in self._replicas:
            served = ServedModel(replica, model, self._events, self._random, levels=levels, takes=takes)
            self._queue.join(served)
        self._events.until(path_seconds)

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self._events.time

    @property
    def busy(self) -> dict[str, float]:
        """Engine seconds a worker."""
        return {replica.name: replica.device.busy() for replica in self._replicas}

    def run(self, seconds: float, loads: Sequence[Load]) -> None:
        """Offers the loads for so long; what is in flight then is answered, too."""
        end = self.now + seconds
        for number, load in enumerate(loads):
            if load.in_flight:
                name = f"{load.owner}-{number}"
                self._closed_loops[name] = load
                self._events.at(self.now, self.arrive, load.in_flight, load, name)
            else:
                self._events.at(self.now + self._gap(load), self._next_of, load, end)
        self._events.until(end)
        self._closed_loops.clear()
        self._events.until(math.inf)

    def late(self) -> float:
        """Seconds by which the next timer is late."""
        return self._late * self._random.random() if self._late else 0.0

    def told(self, batch: Batch, requests: Sequence[Request]) -> None:
        """These of a batch are answered; whoever keeps so many in flight sends the next ones."""
        self.batches.append(batch)
        self.answered += [(request, self.now) for request in requests]
        for name, load in self._closed_loops.items():
            if number := sum([request.owner == name for request in batch.requests]):
                self.arrive(number, load, name)

    def arrive(self, number: int, load: Load, owner: str = "") -> None:
        """So many requests, in one message."""
        deadline = self.now + load.timeout
        requests = [
            Request(owner or load.owner, self.now, deadline, priority=load.priority, sent=self.now)
            for _ in range(number)
        ]
        self.arrivals += number
        self._queue.enter(requests)

    def latencies(self, priority: Priority, since: float = 0.0) -> list[float]:
        """Seconds, of all that came after ``since``, in order of size."""
        return sorted(
            at - request.arrived
            for request, at in self.answered
            if request.priority is priority and request.arrived >= since
        )

    def _next_of(self, load: Load, end: float) -> None:
        if self.now < end:
            self.arrive(load.at_once, load)
            self._events.at(self.now + self._gap(load), self._next_of, load, end)

    def _gap(self, load: Load) -> float:
        return self._random.expovariate(load.rate)


class _Listener:
    """Implements ``policy_queue.Listener``."""

    def __init__(self, service: VirtualService) -> None:
        self._service = service

    def answered(self, batch: Batch, requests: Sequence[Request]) -> None:
        self._service.told(batch, requests)

    def refused(self, request: Request, error: ShoalError) -> None:
        self._service.rejected.append(Reject(request, error))
