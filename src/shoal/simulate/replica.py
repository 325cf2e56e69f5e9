"""A worker under virtual time: its permits and turns are a real one's, its engine follows a model's costs."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from shoal.batching.fair_queue import Queued
from shoal.batching.messages import bulk_part
from shoal.batching.permits import IDLE_SECONDS, PermitGate
from shoal.batching.turns import Order
from shoal.engine.slots import PREFETCHED
from shoal.runtime.priority import INTERACTIVE, Priority
from shoal.runtime.share import share
from shoal.simulate.device import Device, Instances, OwnDevices, Work

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from shoal.batching.permits import Permit
    from shoal.errors import Unavailable
    from shoal.simulate.events import Events
    from shoal.simulate.scenario import SimulatedModel


@dataclass(eq=False, slots=True)
class Request(Queued):
    """One, as batcher and worker see it. Times are virtual seconds."""

    kind: int = 0
    """The number of its load."""
    sent: float = 0.0
    """When its client sent it."""
    ended: bool = False
    """Answered, refused or too late."""


@dataclass(eq=False, slots=True)
class Batch:
    """One, as its worker sees it."""

    priority: Priority
    requests: list[Request] = field(default_factory=list)
    ready: float = 0.0
    """When its last picture is decoded."""
    size: int = 0
    """That executed: who left before is not in it."""
    began: float = 0.0
    ended: float = 0.0


@dataclass(eq=False, slots=True)
class Stream:
    """Carries one batch at a time from a queue to a replica; stands for what its next permit is put into."""

    served: ServedModel
    priority: Priority
    permitted: Callable[[Stream], object]
    """Told at the replica when it has a permit."""
    permit: Permit | None = None
    batch: Batch | None = None
    """The one that it carries."""
    over: bool = False

    @property
    def worker(self) -> str:
        """The name of the worker process at its end."""
        return self.served.worker

    def done(self) -> bool:
        """Whether nobody waits for a permit any more."""
        return self.over

    def set_result(self, permit: Permit) -> None:
        """It was granted."""
        self.permit = permit
        self.permitted(self)

    def set_exception(self, _: Unavailable, /) -> None:
        """Its replica takes no more batches."""
        self.over = True


class Replica:
    """A worker of any number of models, and what they share: decoding threads and, mostly, a device.

    It may consist of several processes. Each has permits and turns of its own, for its part of a model's instances;
    engine and decoding threads are those of all.
    """

    def __init__(self, name: str, events: Events, threads: int = 0, *, shared: bool = True, processes: int = 1) -> None:
        """Prepares.

        Args:
            name: What it calls itself.
            events: The time.
            threads: Pictures that it prepares at once; 0: any number.
            shared: Whether all batches execute on one device, rather than on one each.
            processes: That it consists of.
        """
        self.name = name
        self.slower = 1.0
        """By how many times its batches take longer."""
        self.gone = False
        self.processes = processes
        self.models: dict[str, list[ServedModel]] = {}
        """By model, one of each process that serves it."""
        self._instances: dict[str, Instances] = {}
        self.device: Device | OwnDevices = Device(events) if shared else OwnDevices(events)
        self.devices = int(shared)
        self._shared = shared
        self._threads = [0.0] * threads
        """When each is free; a heap."""

    def serve(self, served: ServedModel, model: SimulatedModel) -> Instances:
        """Serves it, too; the model's instances, which its processes share."""
        if model.name not in self._instances:
            self._instances[model.name] = Instances(model.settings.instance_count)
            if not self._shared:
                self.devices += model.settings.instance_count
        self.models.setdefault(model.name, []).append(served)
        return self._instances[model.name]

    def prepared(self, come: float, seconds: Sequence[float]) -> float:
        """When pictures that come then are all fetched and decoded, which take so long each."""
        if not self._threads:
            return come + max(seconds)
        last = come
        for each in seconds:
            end = max(come, self._threads[0]) + each
            heapq.heapreplace(self._threads, end)
            last = max(last, end)
        return last

    def die(self) -> None:
        """Nothing more comes of it."""
        self.gone = True
        self.device.stop()


class ServedModel:
    """A model at a process of a replica: grants its permits, and hands batches to the engine in a worker's turns."""

    def __init__(
        self,
        replica: Replica,
        model: SimulatedModel,
        events: Events,
        source: random.Random,
        *,
        process: int = 0,
        levels: bool = True,
        takes: Callable[[str, Batch, float], float] = lambda _, __, seconds: seconds,
    ) -> None:
        """Prepares.

        Args:
            replica: Where.
            model: Which.
            events: The time.
            source: Of chance.
            process: At which of the replica's; numbers count from 0.
            levels: Whether it knows priorities; the first to come is first in one that doesn't.
            takes: Given the replica's name, a batch that begins, and what the costs say of it: its seconds.
        """
        self.name = model.name
        self.replica = replica
        self.worker = f"{replica.name}/{process}" if replica.processes > 1 else replica.name
        """What the process calls itself."""
        instances = share(model.settings.instance_count, replica.processes)
        self.settings = replace(model.settings, instance_count=instances)
        """What it tells batchers."""
        self._events = events
        self._model = model
        self._source = source
        self._levels = levels
        self._takes = takes
        # Nobody else asks for permits of a priority: so none that idles shuts anybody out, and none need go stale.
        stale = math.inf if levels else IDLE_SECONDS
        self._gate = PermitGate(instances + PREFETCHED, stale, clock=events)
        self._order = Order(instances, PREFETCHED)
        self._numbers = count()
        self._waiting: dict[int, tuple[Batch, Callable[[], object]]] = {}
        self._instances = replica.serve(self, model)

    @property
    def permits(self) -> int:
        """That a queue gets of a priority, at most."""
        return self._gate.limit

    def ask(self, stream: Stream) -> None:
        """It waits for a permit."""
        level = stream.priority if self._levels else INTERACTIVE
        self._gate.ask(stream.priority, level, stream)

    def use(self, stream: Stream) -> None:
        """The first picture of its batch has come."""
        if stream.permit is not None:
            stream.permit.use()

    def renew(self, stream: Stream) -> bool:
        """Its batch is through; whether it keeps its permit."""
        return stream.permit is not None and stream.permit.renew()

    def ready(self, batch: Batch, done: Callable[[], object]) -> None:
        """The batch is closed and prepared; ``done`` is told when it has been executed."""
        if self.replica.gone:
            return
        number = next(self._numbers)
        self._waiting[number] = batch, done
        self._order.ask(number, self._level(batch), bulk_part([request.priority for request in batch.requests]))
        self._execute()

    def _execute(self) -> None:
        while (number := self._order.begin()) is not None:
            self._instances.ask(partial(self._begin, *self._waiting.pop(number)))

    def _begin(self, batch: Batch, done: Callable[[], object]) -> None:
        batch.began = self._events.time
        batch.size = len(batch.requests) - sum([request.ended for request in batch.requests])
        if not batch.size:  # all have left
            self._ended(batch, done)
            return
        seconds = self._model.costs.seconds(batch.size) * self.replica.slower
        if self._model.jitter is not None:
            seconds *= self._model.jitter.draw(self._source)
        seconds = self._takes(self.replica.name, batch, seconds)
        self.replica.device.begin(Work(seconds, self._model.costs.speed, partial(self._ended, batch, done)))

    def _ended(self, batch: Batch, done: Callable[[], object]) -> None:
        batch.ended = self._events.time
        self._instances.free()
        self._order.end(self._level(batch))
        self._execute()
        self._instances.go_on()
        done()

    def _level(self, batch: Batch) -> Priority:
        return batch.priority if self._levels else INTERACTIVE
