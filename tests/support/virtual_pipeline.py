"""A pipeline under virtual time: its real handler and the real policies of all batchers, before simulated engines.

What it says of pictures and engine seconds is a calculation: no process, network or CPU is in it, and so none of what
refusing costs.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from shoal.batcher.policy import BatchingPolicy, Close, Send
from shoal.batching.fair_queue import Queued
from shoal.batching.permits import PermitGate
from shoal.batching.service import PREFETCHED_BATCHES
from shoal.batching.v1 import batching_pb2
from shoal.errors import Code, to_status
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import Task
from shoal.pipeline.admission import METHOD, Admission
from shoal.pipeline.analysis import Running
from shoal.pipeline.handler import PipelineHandler
from shoal.pipeline.meter import Meter
from shoal.pipeline.steps import Step
from shoal.pipeline.times import Times
from shoal.runtime.deadlines import Deadlines
from shoal.runtime.priority import Priority
from shoal.service.api_keys import Key, KeyRing
from shoal.service.identity import Identity
from shoal.simulate.curve import CostCurve
from shoal.simulate.policy_queue import PolicyQueue
from shoal.simulate.replica import Batch, Replica, Request, ServedModel
from shoal.simulate.scenario import SimulatedModel
from shoal.simulate.spreads import Uniform
from shoal.v1 import inference_pb2 as pb
from shoal.worker.access import Access
from support.virtual_loop import LoopEvents, VirtualLoop, play

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shoal.batching.permits import Permit
    from shoal.errors import ShoalError
    from shoal.pipeline.calls import Caller
    from shoal.pipeline.handler import PipelineBatch

PATH = 0.0005
"""Seconds from one part to the next."""
PREPARE = Uniform(0.003, 0.006)
DETECTOR, CLASSIFIER = "finder", "species"
STEPS = Step(
    DETECTOR, DETECTOR, Task.DETECTION, max_boxes=100, then=(Step(CLASSIFIER, CLASSIFIER, Task.CLASSIFICATION),)
)
COSTS = {DETECTOR: CostCurve(0.006, 0.0025), CLASSIFIER: CostCurve(0.004, 0.0012)}
"""Like those of the small models of the benchmark, on two cores."""
LARGEST = 32


@dataclass(frozen=True, slots=True)
class Load:
    """Pictures of one kind."""

    rate: float = 0.0
    """A second, in a Poisson process. 0: ``in_flight`` are kept there."""
    in_flight: int = 0
    timeout: float = 1.0
    """Seconds; infinite: none."""
    owner: str = "alice"
    priority: Priority = Priority.INTERACTIVE
    boxes: int = 5


@dataclass(slots=True)
class Outcome:
    """What came of a load's pictures that came after the warm-up."""

    offered: int = 0
    whole: int = 0
    """In time, with all of their parts."""
    parts: int = 0
    codes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Played:
    """What came of all."""

    loads: Sequence[Outcome]
    seconds: float
    """After the warm-up."""
    useful: float
    """Engine seconds that went into whole answers."""
    busy: float
    """All of them."""
    work: float
    """Engine seconds that whole answers would take in full batches."""

    @property
    def rate(self) -> float:
        """Whole answers a second."""
        return sum(load.whole for load in self.loads) / self.seconds

    @property
    def worth(self) -> float:
        """Engine seconds that whole answers would take in full batches, a second."""
        return self.work / self.seconds

    @property
    def wasted(self) -> float:
        """Share of the engine's time."""
        return 1 - self.useful / self.busy if self.busy else 0.0


@dataclass(frozen=True)
class Service:
    """One to play loads on."""

    costs: Mapping[str, CostCurve] = field(default_factory=lambda: COSTS)
    processes: int = 1
    max_pictures: int = 64
    workers: int = 1
    noise: float = 0.1
    """Batches take up to so much longer, as a share."""
    slower: Callable[[float], float] = lambda _: 1.0
    """By how many times batches take longer that begin then."""
    seed: int = 1

    def work(self, boxes: int) -> float:
        """Engine seconds of a picture in full batches."""
        full = {model: costs.seconds(LARGEST) / LARGEST for model, costs in self.costs.items()}
        return full[DETECTOR] + boxes * full[CLASSIFIER]

    def play(self, *loads: Load, seconds: float = 20.0, warm_up: float = 5.0) -> Played:
        """Once; each time the same."""
        played: list[Played] = []

        async def main(loop: VirtualLoop) -> None:
            run = _Run(loop, self, warm_up)
            played.append(await run.play(loads, seconds))

        play(main)
        return played[0]


@dataclass(eq=False, slots=True)
class _Call(Request):
    """Of a model."""

    answer: asyncio.Future[None] | None = None
    picture: str = ""


class _Models:
    """Implements ``Calls``, and for its queues ``Listener`` and ``Ways``."""

    path, slower_store, tells, named = PATH, 1.0, True, True

    def __init__(self, loop: VirtualLoop, service: Service) -> None:
        self._loop = loop
        self._source = random.Random(service.seed)
        self.boxes: dict[str, int] = {}
        self.spent: list[tuple[float, str, float]] = []
        """Seconds of an engine: when, and for which picture."""
        events = LoopEvents(loop)
        jitter = Uniform(1.0, 1 + service.noise) if service.noise else None
        settings = BatchingSettings(max_batch_size=LARGEST, max_queue_delay_microseconds=2000, instance_count=2)
        replicas = [Replica(f"w{number}", events) for number in range(service.workers)]
        self._queues = {}
        for name, costs in service.costs.items():
            model = SimulatedModel(name, settings, costs, PREPARE, jitter)
            queue = self._queues[name] = PolicyQueue(model, events, self, self, self._source)
            for replica in replicas:
                queue.join(ServedModel(replica, model, events, self._source, takes=self._taking(service)))

    def _taking(self, service: Service) -> Callable[[str, Batch, float], float]:
        def takes(_: str, batch: Batch, seconds: float) -> float:
            now = self._loop.now
            seconds *= service.slower(now)
            there = [request for request in batch.requests if not request.ended]
            self.spent += [(now, request.picture, seconds / len(there)) for request in there]
            return seconds

        return takes

    def late(self) -> float:
        return self._source.random() * 0.001

    def answered(self, _: Batch, requests: Sequence[_Call]) -> None:
        for request in requests:
            request.answer.set_result(None)

    def refused(self, request: _Call, error: ShoalError) -> None:
        request.answer.set_exception(error)

    async def __call__(
        self, step: Step, request: pb.ImageRequest, caller: Caller, deadline: float, affinity: str
    ) -> Any:
        await asyncio.sleep(PATH)
        now = self._loop.now
        parts = len(request.regions)
        calls = [self._call(request, caller, now, deadline, affinity) for _ in range(max(1, parts))]
        try:
            for call in calls:
                self._queues[step.model].enter_one(call)
            await asyncio.gather(*(call.answer for call in calls))
        finally:
            for call in calls:
                call.ended = True
        await asyncio.sleep(PATH)
        if step.task is Task.CLASSIFICATION:
            return pb.ClassifyReply(region_replies=[pb.ClassifyRegionReply(reply=pb.ClassifyReply())] * parts)
        boxes = self.boxes[request.image_uuid]
        return pb.DetectReply(boxes=[pb.Box(width=0.1, height=0.1, score=0.9)] * boxes)

    def _call(self, request: pb.ImageRequest, caller: Caller, now: float, deadline: float, affinity: str) -> _Call:
        call = _Call(caller.owner, now, deadline, priority=caller.priority, sent=now, affinity=affinity)
        call.answer, call.picture = self._loop.create_future(), request.image_uuid
        return call


@dataclass(eq=False, slots=True)
class _Picture(Queued):
    """At the pipeline's batcher."""

    load: Load = field(kw_only=True)
    uuid: str = field(kw_only=True)
    outcome: Outcome = field(kw_only=True)
    ended: bool = False
    carried: tuple[_Stream, int] | None = None


@dataclass(eq=False, slots=True)
class _Process:
    """One of the pipeline's."""

    name: str
    handler: PipelineHandler
    gate: PermitGate


class _Stream:
    """Between the pipeline's batcher and one of its processes, as ``BatchStream`` and ``ServedStream`` have it."""

    def __init__(self, run: _Run, process: _Process, priority: Priority) -> None:
        self.run, self.process, self.priority = run, process, priority
        self.permit: Permit | None = None
        self.batch: PipelineBatch | None = None
        self.sent = 0
        self.unanswered: dict[int, _Picture] = {}
        self.batches: dict[int, PipelineBatch] = {}
        self._ask()

    def _ask(self) -> None:
        self.process.gate.ask("batcher", self.priority, self)

    def done(self) -> bool:
        return False

    def set_result(self, permit: Permit) -> None:
        self.permit = permit
        self.run.loop.call_later(PATH, self.run.permitted, self)

    def set_exception(self, _: Exception, /) -> None:
        raise AssertionError

    def send(self, pictures: Sequence[_Picture]) -> None:
        if self.batch is None:
            self.batch = self.process.handler.begin(METHOD, self.priority)
            self.batch.tell_early(partial(self.run.loop.call_later, PATH, self._results))
        items = [self.run.item(index, picture) for index, picture in enumerate(pictures, self.sent)]
        for item, picture in zip(items, pictures, strict=True):
            self.unanswered[item.index], picture.carried = picture, (self, item.index)
            self.batches[item.index] = self.batch
        self.sent += len(items)
        self.run.loop.call_later(PATH, self._arrive, self.batch, items)

    def _arrive(self, batch: PipelineBatch, items: Sequence[batching_pb2.BatchItem]) -> None:
        self.permit.use()
        batch.add(*items)

    def close(self) -> None:
        self.run.loop.call_later(PATH, lambda batch: self.run.start(self._finish(batch)), self.batch)

    async def _finish(self, batch: PipelineBatch) -> None:
        groups = batch.finish()
        results = await anext(groups, ())
        renewed = self.permit.renew()
        self.run.loop.call_later(PATH, self._first_results, results, renewed)
        if not renewed:
            self._ask()
        async for results in groups:
            self.run.loop.call_later(PATH, self._results, results)

    def _first_results(self, results: Sequence[batching_pb2.BatchItemResult], renewed: bool) -> None:
        self.batch = None
        self.run.came_through(self)
        self._results(results)
        if renewed:
            self.run.permitted(self)

    def _results(self, results: Sequence[batching_pb2.BatchItemResult]) -> None:
        for result in results:
            del self.batches[result.index]
            self.run.answered(self.unanswered.pop(result.index), result)


class _Run:
    def __init__(self, loop: VirtualLoop, service: Service, warm_up: float) -> None:
        self.loop = loop
        self._service = service
        self._warm_up = warm_up
        self._source = random.Random(f"{service.seed}/arrivals")
        self._models = _Models(loop, service)
        self._policy: BatchingPolicy[_Stream, _Picture] = BatchingPolicy(BatchingSettings())
        self._deadlines: Deadlines[_Picture] = Deadlines(loop, self._expire)
        self._keys: dict[str, Key] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._whole: set[str] = set()
        self._number = 0
        self._wake_at = math.inf
        self._outcomes: list[Outcome] = []
        self._ends = math.inf

    async def play(self, loads: Sequence[Load], seconds: float) -> Played:
        self._ends = self._warm_up + seconds
        self._keys = {
            load.owner: Key(id=f"key-{load.owner}", key=load.owner.ljust(24, "k"), owner=load.owner) for load in loads
        }
        self._open()
        for load in loads:
            outcome = Outcome()
            self._outcomes.append(outcome)
            if load.rate:
                self._after_gap(load, outcome)
            for _ in range(0 if load.rate else load.in_flight):
                self._arrive(load, outcome)
        await asyncio.sleep(self._ends)
        spent = [each for each in self._models.spent if each[0] >= self._warm_up]
        await asyncio.sleep(2.0)  # what is in flight has its end, one way or another
        useful = sum(each for _, picture, each in spent if picture in self._whole)
        work = sum(
            outcome.whole * self._service.work(load.boxes) for load, outcome in zip(loads, self._outcomes, strict=True)
        )
        return Played(self._outcomes, seconds, useful, sum(each for *_, each in spent), work)

    def start(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _open(self) -> None:
        ring = KeyRing(tuple(self._keys.values()))
        streams = []
        for number in range(self._service.processes):
            running = Running("virtual", STEPS, self._models, Times(STEPS), Meter("virtual"), self.loop.time)
            admission, most = Admission("virtual", Access(ring)), self._service.max_pictures
            handler = PipelineHandler(running, admission, most, self._service.processes)
            self._policy.configure(handler.settings)
            gate = PermitGate(handler.settings.instance_count + PREFETCHED_BATCHES, clock=LoopEvents(self.loop))
            process = _Process(f"p{number}", handler, gate)
            streams += [_Stream(self, process, priority) for _ in range(gate.limit) for priority in Priority]
        self._streams = streams

    # Pictures.

    def _after_gap(self, load: Load, outcome: Outcome) -> None:
        self.loop.call_later(self._source.expovariate(load.rate), self._come, load, outcome)

    def _come(self, load: Load, outcome: Outcome) -> None:
        if self.loop.now < self._ends:
            self._arrive(load, outcome)
            self._after_gap(load, outcome)

    def _arrive(self, load: Load, outcome: Outcome) -> None:
        now = self.loop.now
        self._number += 1
        uuid = f"00000000-0000-4000-8000-{self._number:012}"
        self._models.boxes[uuid] = load.boxes
        picture = _Picture(
            owner=load.owner,
            arrived=now,
            deadline=now + load.timeout,
            priority=load.priority,
            load=load,
            uuid=uuid,
            outcome=outcome,
        )
        outcome.offered += now >= self._warm_up
        if load.timeout < math.inf:
            self._deadlines.add([picture])
        self._do(self._policy.arrived(now, [picture]))

    def item(self, index: int, picture: _Picture) -> batching_pb2.BatchItem:
        now, key = self.loop.now, self._keys[picture.owner]
        request = pb.ImageRequest(api_key=key.key, image_uuid=picture.uuid, model_name="virtual")
        left = picture.deadline - now
        return batching_pb2.BatchItem(
            index=index,
            request=request.SerializeToString(),
            owner=key.id,
            identity=Identity.of(key).write(),
            timeout_us=max(1, round(left * 1e6)) if left < math.inf else 0,
            queued_us=round((now - picture.arrived) * 1e6),
            priority=batching_pb2.PRIORITY_BULK if picture.priority is Priority.BULK else 0,
        )

    def answered(self, picture: _Picture, result: batching_pb2.BatchItemResult) -> None:
        if picture.ended:
            return
        lacking = False
        if not result.code:
            reply = pb.AnalyzeReply.FromString(result.response)
            lacking = any(each.code for finding in reply.findings for each in finding.results)
        self._end(picture, "PART" if lacking else Code(result.code).name)

    def _end(self, picture: _Picture, code: str) -> None:
        picture.ended = True
        if picture.deadline < math.inf:
            self._deadlines.remove(picture)
        if code == "OK":
            self._whole.add(picture.uuid)
        if self._warm_up <= self.loop.now < self._ends:
            picture.outcome.codes[code] += 1
            picture.outcome.whole += code == "OK"
            picture.outcome.parts += code == "PART"
        load = picture.load
        if not load.rate and self.loop.now < self._ends:
            self.loop.call_later(2 * PATH, self._arrive, load, picture.outcome)

    def _expire(self, pictures: Sequence[_Picture]) -> None:
        for picture in pictures:
            if not picture.ended:
                self._end(picture, "LATE")
                if picture.carried:
                    stream, index = picture.carried
                    if batch := stream.batches.get(index):
                        self.loop.call_later(PATH, batch.withdraw, index)
        self._do(self._policy.withdrawn(self.loop.now, pictures))

    # The policy.

    def permitted(self, stream: _Stream) -> None:
        self._do(self._policy.permitted(self.loop.now, stream, stream.process.name, stream.priority))

    def came_through(self, stream: _Stream) -> None:
        self._policy.executed(self.loop.now, stream)

    def _do(self, decisions: Sequence[Any]) -> None:
        for decision in decisions:
            if isinstance(decision, Send):
                decision.stream.send(decision.requests)
            elif isinstance(decision, Close):
                decision.stream.close()
            elif not decision.request.ended:
                self._end(decision.request, Code(to_status(decision.error)[0]).name)
        wake_at = self._policy.wake_at
        if wake_at < self._wake_at:
            self._wake_at = wake_at
            self.loop.call_at(wake_at, self._wake, wake_at)

    def _wake(self, at: float) -> None:
        if at == self._wake_at:
            self._wake_at = math.inf
            self._do(self._policy.tick(self.loop.now))
