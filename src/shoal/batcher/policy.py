"""When a batch opens, grows and closes: plain state fed with events, without I/O and without a clock of its own.

The words are Triton's (model_config.proto, ``ModelDynamicBatching``): the largest preferred size that fits goes at
once; otherwise a batch goes when its oldest request has waited ``max_queue_delay_microseconds``. What Shoal adds is the
permit: a batch exists only where a worker has said that it can take one, so without a permit requests wait in the queue
and the next batch grows. And it minds deadlines: a batch goes early when its tightest deadline would otherwise be
missed, and a request that can't be served in time is refused when it comes, not when it is too late.

A request under which a stream broke is a *suspect*: nobody knows whether it or one of its mates broke the worker. It is
sent once more, in a batch of its own, while no other suspect is at the same worker (``quarantine.py``): so whoever is
innocent gets an answer, and whoever is guilty breaks its second stream alone and ends there. What the worker never
began is no suspect, and goes to the head of the queue.

The server and the simulator drive the same object: each event method takes the time and answers with decisions, in the
order in which they have to be carried out; ``wake_at`` says when ``tick`` wants to be called next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeAlias, TypeVar

from shoal.batcher.lane import DEADLINE, Lane, OpenBatch
from shoal.batcher.quarantine import Quarantine
from shoal.batcher.workload import Workload
from shoal.batching.fair_queue import FairQueue, Queued
from shoal.errors import DeadlineExceeded, Overloaded, ShoalError, Unavailable
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from shoal.modelconfig.batching import BatchingSettings

Stream = TypeVar("Stream", bound="Hashable")
Request = TypeVar("Request", bound=Queued)
CloseReason = Literal["preferred", "delay", "objective", "enough", "bulk", "deadline", "drain", "alone"]

DEFAULT_MAX_QUEUE_SIZE = 10_000
"""Where the model names no ``max_queue_size``: a queue has a bound."""
MAX_ATTEMPTS = 2
"""Streams that may break under one request before it is answered UNAVAILABLE: one in company, one alone."""
FILL: Final = 1.25
"""Bulk requests that fill a batch of interactive ones add at most so many times what the smallest batch costs."""
_WORTH_IT = 1.25
"""A batch is kept small for its promise's sake where a request of it costs at most so many times as much."""
_LEAD = 2 / 3
"""Of the time of a full batch: what fetch and decode get at most while a worker is busy."""
_ENOUGH = 1.05
"""A batch whose requests cost at most so many times as much as in a full one needs no more company."""
_ROUNDING = 1e-6
_GIVEN_UP = (
    "a worker's stream broke under this request, and another one when it was tried again alone; if other requests are "
    "answered, it may be this one that breaks them"
)


@dataclass(frozen=True, slots=True)
class Send(Generic[Stream, Request]):
    """Put these requests on the stream, in one message."""

    stream: Stream
    requests: Sequence[Request]


@dataclass(frozen=True, slots=True)
class Close(Generic[Stream]):
    """The batch on the stream is complete."""

    stream: Stream
    size: int
    reason: CloseReason


@dataclass(frozen=True, slots=True)
class Reject(Generic[Request]):
    """Answer this request with the error; it is in no queue any more."""

    request: Request
    error: ShoalError


Decision: TypeAlias = Send[Stream, Request] | Close[Stream] | Reject[Request]


class BatchingPolicy(Generic[Stream, Request]):
    """The policy of one queue. Times are seconds of any one clock; ``Stream`` is whatever names a stream.

    A request is in exactly one place: the queue, the suspects, a stream it was sent on, or out by ``Reject`` or
    ``withdrawn``.
    """

    def __init__(self, settings: BatchingSettings, quarantine: Quarantine | None = None) -> None:
        """Starts empty.

        Args:
            settings: The worker's, or what holds before one is known.
            quarantine: Shared by all policies whose streams lead to the same workers.
        """
        self.wake_at: float = math.inf
        self._interactive: Lane[Stream, Request] = Lane(Priority.INTERACTIVE)
        self._bulk: Lane[Stream, Request] = Lane(Priority.BULK)
        self._lanes = {lane.priority: lane for lane in (self._interactive, self._bulk)}
        self._quarantine = quarantine or Quarantine()
        self._work: Workload[Stream] = Workload()
        self._draining = False
        self.configure(settings)

    def configure(self, settings: BatchingSettings) -> None:
        """Takes new settings; they hold from the next decision on."""
        self.settings = settings
        sizes = {size for size in settings.preferred_batch_size if 0 < size <= settings.max_batch_size}
        self._sizes = sorted(sizes) or [max(1, settings.max_batch_size)]
        self._delay = settings.max_queue_delay_microseconds / 1e6
        self._objective = settings.latency_objective_microseconds / 1e6
        self._work.instances = settings.instance_count

    @property
    def queued(self) -> int:
        """Requests that wait for a permit, suspects included."""
        return sum(len(lane.queue) + len(lane.suspects) for lane in self._lanes.values())

    @property
    def suspects(self) -> int:
        """Requests that wait to be sent alone."""
        return sum(len(lane.suspects) for lane in self._lanes.values())

    @property
    def idle_permits(self) -> int:
        """Permits that no batch uses yet."""
        return sum(len(lane.permits) for lane in self._lanes.values())

    def arrived(self, now: float, requests: Sequence[Request]) -> list[Decision[Stream, Request]]:
        """New requests, in order. A full queue makes room at the cost of bulk, and of whoever has most in it."""
        for request in requests:
            self._lanes[request.priority].queue.append(request)
        decisions = self._advance(now)
        if requests and (self._interactive.queue or self._bulk.queue):
            decisions += self._hopeless(now, requests)
            decisions += self._surplus(requests[-1].owner)
        return decisions

    def withdrawn(self, now: float, requests: Sequence[Request]) -> list[Decision[Stream, Request]]:
        """The requests' callers are gone or their deadlines have passed; nothing happens to what was sent already."""
        for request in requests:
            self._lanes[request.priority].home_of(request).discard(request)
        return self._advance(now)

    def permitted(
        self, now: float, stream: Stream, worker: str = "", priority: Priority = Priority.INTERACTIVE
    ) -> list[Decision[Stream, Request]]:
        """``worker`` can take a batch on ``stream``, of which ``priority`` says what its batches begin with.

        Workers that don't say who they are count as one.
        """
        self._lanes[priority].permits[stream] = worker
        return self._advance(now)

    def settled(self, now: float, stream: Stream) -> list[Decision[Stream, Request]]:
        """The suspect on ``stream`` has its answer: the next one may go."""
        self._quarantine.leave(stream)
        return self._advance(now)

    def executed(self, now: float, stream: Stream) -> None:
        """The batch on ``stream`` has its first answers: all but stragglers are through."""
        self._work.executed(now, stream)

    def stalled(self, now: float, stream: Stream) -> None:
        """The batch on ``stream`` is all stragglers: it is no work ahead of others, and teaches nothing about them."""
        self._work.remove(now, stream)

    def lost(
        self, now: float, stream: Stream, unanswered: Sequence[Request], unbegun: Sequence[Request] = ()
    ) -> list[Decision[Stream, Request]]:
        """The stream ended, in whatever state.

        Args:
            now: The time.
            stream: Which.
            unanswered: The requests under which it broke. They are suspects from now on; those that were already are
                given up.
            unbegun: Requests that no worker has begun: they go to the head of their queue again.
        """
        self._work.remove(now, stream)
        self._quarantine.leave(stream)
        for lane in self._lanes.values():
            lane.forget(stream)
        for request in reversed(unbegun):
            self._lanes[request.priority].home_of(request).push_back(request)
        decisions: list[Decision[Stream, Request]] = []
        for request in unanswered:
            request.attempts += 1
            if request.attempts >= MAX_ATTEMPTS:
                decisions.append(Reject(request, Unavailable(_GIVEN_UP)))
            else:
                self._lanes[request.priority].suspects.append(request)
        return decisions + self._advance(now)

    def revoked(self, stream: Stream) -> None:
        """The permit on ``stream``, which no batch uses, is given back."""
        for lane in self._lanes.values():
            lane.permits.pop(stream, None)

    def tick(self, now: float) -> list[Decision[Stream, Request]]:
        """Time has passed: call it at ``wake_at`` or later."""
        return self._advance(now)

    def drain(self, now: float) -> list[Decision[Stream, Request]]:
        """From now on nothing waits for company."""
        self._draining = True
        return self._advance(now)

    def fail(self, error: ShoalError) -> list[Reject[Request]]:
        """Rejects all that is queued."""
        queues = [queue for lane in self._lanes.values() for queue in (lane.suspects, lane.queue)]
        return [Reject(request, error) for queue in queues for request in queue.take(len(queue))]

    # From the queue to a batch.

    def _advance(self, now: float) -> list[Decision[Stream, Request]]:
        decisions: list[Decision[Stream, Request]] = []
        for lane in (self._interactive, self._bulk):
            while self._isolate(now, lane, decisions) or (lane.queue and self._grow(now, lane, decisions)):
                pass
        for lane in (self._interactive, self._bulk):  # what waits in the second lane fills a batch of the first
            if lane.open is not None and (reason := self._due(now, lane, lane.open)):
                self._close(now, lane, lane.open, reason, decisions)
        self.wake_at = min(
            self._due_at(now, lane, lane.open)[0] if lane.open else math.inf for lane in self._lanes.values()
        )
        return decisions

    def _isolate(self, now: float, lane: Lane[Stream, Request], decisions: list[Decision[Stream, Request]]) -> bool:
        """Sends the next suspect as a batch of its own, in turn with the others' batches; whether to go on."""
        if not lane.suspects or (lane.alone_last and lane.queue):
            return False
        free = (stream for stream, worker in lane.permits.items() if self._quarantine.is_free(worker))
        if (stream := next(free, None)) is None:
            return False
        requests, expired = _take(now, 1, lane.suspects)
        decisions += expired
        if requests:
            lane.alone_last = True
            worker = lane.permits.pop(stream)
            self._quarantine.enter(stream, worker)
            self._work.add(now, stream, worker or stream, 1, lane.priority)
            decisions += [Send(stream, requests), Close(stream, 1, "alone")]
        return True

    def _grow(self, now: float, lane: Lane[Stream, Request], decisions: list[Decision[Stream, Request]]) -> bool:
        """Sends what fits into the open batch, opening one if a permit allows; whether to go on."""
        batch = lane.open or self._begin(now, lane)
        if batch is None:
            return False
        size, closes = self._fitting(now, lane, batch)
        requests, expired = _take(now, size - batch.size, lane.queue)
        decisions += expired
        if requests:
            if lane.open is None:
                lane.open = batch
                lane.alone_last = False
                del lane.permits[batch.stream]
            batch.grow(requests)
            decisions.append(Send(batch.stream, requests))
        if lane.open and (reason := "objective" if closes else self._due(now, lane, batch)):
            self._close(now, lane, batch, reason, decisions)
            return True
        return bool(requests or expired)

    def _begin(self, now: float, lane: Lane[Stream, Request]) -> OpenBatch[Stream] | None:
        """A batch on one of the permits, if there is any."""
        if not lane.permits:
            return None
        gather = self._objective and (lane is self._bulk or not self._bulk.queue)
        stream = self._fullest(now, lane) if gather else self._emptiest(now, lane)
        return OpenBatch(stream, lane.permits[stream] or stream)

    def _emptiest(self, now: float, lane: Lane[Stream, Request]) -> Stream:
        """The permit whose worker can start first; the oldest of several."""
        idle = (stream for stream, worker in lane.permits.items() if not self._work.at(worker or stream))
        first = next(idle, None)
        if first is not None:
            return first
        return min(lane.permits, key=lambda stream: self._free_at(now, lane, stream))

    def _fullest(self, now: float, lane: Lane[Stream, Request]) -> Stream:
        """The permit whose worker has most to do and can still keep the promise; where none can, the first to start.

        Of several the first by its name: so the same workers stay idle, and can be taken away.
        """
        latest = self._promise(lane.queue.head().arrived) - self._work.times.expected(self._sizes[-1])
        free_at = {stream: self._free_at(now, lane, stream) for stream in lane.permits}
        able = [stream for stream, at in free_at.items() if at <= latest]
        if not able:
            return min(free_at, key=free_at.__getitem__)
        return min(able, key=lambda stream: (-self._work.at(lane.permits[stream] or stream), lane.permits[stream]))

    def _free_at(self, now: float, lane: Lane[Stream, Request], stream: Stream) -> float:
        return self._work.free_at(now, lane.permits[stream] or stream, lane.priority)

    def _fitting(self, now: float, lane: Lane[Stream, Request], batch: OpenBatch[Stream]) -> tuple[int, bool]:
        """The size to which a batch grows by what waits, and whether it has to close with it.

        That is the largest preferred size that is reached, or all; or as many as its oldest request's promise allows,
        where the others cost hardly more in a batch of their own.
        """
        available = batch.size + len(lane.queue)
        size = max((size for size in self._sizes if size <= available), default=available)
        times = self._work.times
        if not self._objective or not times.known or (lane is self._interactive and self._bulk.queue):
            return size, False
        oldest = min(batch.oldest, lane.queue.head().arrived)
        start = self._work.free_at(now, batch.worker, lane.priority)
        promised = int(min(times.largest(self._promise(oldest) - start) + _ROUNDING, size))
        kept = max(promised, batch.size)
        if 0 < kept < size and times.expected(kept) * size <= _WORTH_IT * times.expected(size) * kept:
            return kept, True
        return size, False

    def _due(self, now: float, lane: Lane[Stream, Request], batch: OpenBatch[Stream]) -> CloseReason | None:
        if batch.size in self._sizes or batch.size >= self._sizes[-1]:
            return "preferred"
        if self._draining:
            return "drain"
        if self._is_enough(now, lane, batch):
            return "enough"
        at, reason = self._due_at(now, lane, batch)
        return reason if now >= at else None

    def _is_enough(self, now: float, lane: Lane[Stream, Request], batch: OpenBatch[Stream]) -> bool:
        """Whether its worker is idle and more requests would make it hardly cheaper, so that waiting gains nothing."""
        times = self._work.times
        if not self._objective or not times.known or self._work.free_at(now, batch.worker, lane.priority) > now:
            return False
        largest = self._sizes[-1]
        return times.expected(batch.size) * largest <= _ENOUGH * times.expected(largest) * batch.size

    def _due_at(self, now: float, lane: Lane[Stream, Request], batch: OpenBatch[Stream]) -> tuple[float, CloseReason]:
        """When it has to go: its oldest request has waited long enough, or its tightest deadline needs the rest.

        Where bulk requests wait, its worker is never idle: then it goes before it can start, so early that fetch and
        decode are through. If it waited longer, a bulk batch would go first, and until then others may join.
        """
        if lane is self._interactive and self._bulk.queue:
            lead = _LEAD * self._work.times.expected(self._sizes[-1])
            return self._work.free_at(now, batch.worker, lane.priority) - lead, "bulk"
        patience = self._patience(batch)
        needed = batch.tightest - self._work.times.cautious(batch.size)
        if needed < patience:
            return needed, "deadline"
        return patience, "objective" if self._objective else "delay"

    def _patience(self, batch: OpenBatch[Stream]) -> float:
        """Until when its oldest request waits for company: all its delay, or as long as the objective allows.

        Before any time is known, that is half of the objective.
        """
        if not self._objective:
            return batch.oldest + self._delay
        if not self._work.times.known:
            return batch.oldest + self._objective / 2
        return self._promise(batch.oldest) - self._work.times.expected(batch.size)

    def _promise(self, arrived: float) -> float:
        """By when the answer to a request has to be expected, so that it mostly comes within the objective."""
        return arrived + self._objective - self._work.margin

    def _close(
        self,
        now: float,
        lane: Lane[Stream, Request],
        batch: OpenBatch[Stream],
        reason: CloseReason,
        decisions: list[Decision[Stream, Request]],
    ) -> None:
        lane.open = None
        size = batch.size
        if lane is self._interactive and (room := self._room(now, batch)):
            requests, expired = _take(now, room, self._bulk.queue)
            decisions += [*expired, Send(batch.stream, requests)] if requests else expired
            size += len(requests)
        self._work.add(now, batch.stream, batch.worker, size, lane.priority)
        decisions.append(Close(batch.stream, size, reason))

    def _room(self, now: float, batch: OpenBatch[Stream]) -> int:
        """How many bulk requests a closing batch of interactive ones takes along.

        What a batch costs at least, however small it is, they have for nothing; so they may cost about as much. Where
        requests cost hardly less together than alone that is none. All deadlines have to hold.
        """
        times = self._work.times
        if not self._bulk.queue or not times.known or batch.size >= self._sizes[-1]:
            return 0
        expected = times.expected(batch.size)
        start = self._work.free_at(now, batch.worker, Priority.INTERACTIVE)
        spare = batch.tightest - start - times.cautious(batch.size)
        largest = times.largest(expected + min(FILL * times.expected(0), spare)) + _ROUNDING
        size = int(min(largest, batch.size + len(self._bulk.queue), self._sizes[-1]))
        reached = max((each for each in self._sizes if batch.size < each <= size), default=0)
        if reached or batch.size in self._sizes:
            size = reached
        return max(0, size - batch.size)

    # What there is no time or place for.

    def _hopeless(self, now: float, requests: Sequence[Request]) -> list[Reject[Request]]:
        """Takes out what has just come and can't be answered within its deadline."""
        longest = self._expected_wait(self._bulk, len(self._bulk.queue) - 1)
        if not longest or now + longest <= min(map(DEADLINE, requests)):
            return []
        rejected: list[Reject[Request]] = []
        of: dict[tuple[Priority, str], list[Request]] = {}
        for request in requests:
            if request in self._lanes[request.priority].queue:
                of.setdefault((request.priority, request.owner), []).append(request)
        for (priority, owner), theirs in of.items():
            rejected += self._too_late(now, self._lanes[priority], owner, theirs)
        return rejected

    def _too_late(
        self, now: float, lane: Lane[Stream, Request], owner: str, newest: Sequence[Request]
    ) -> list[Reject[Request]]:
        """Takes out those of one owner's newest requests that can't be answered in time, if the others are kept."""
        place = lane.queue.waiting_of(owner) - len(newest)
        ahead: float = lane.queue.ahead_of(place + 1)
        step = (lane.queue.ahead_of(place + len(newest)) - ahead) / max(1, len(newest) - 1)
        rejected: list[Reject[Request]] = []
        for request in newest:
            wait = self._expected_wait(lane, ahead)
            if now + wait <= request.deadline:
                ahead += step
            else:
                lane.queue.discard(request)
                text = f"the deadline can't be met: about {wait:.1f} s of work are ahead; try again later"
                rejected.append(Reject(request, Overloaded(text, retry_after_seconds=wait)))
        return rejected

    def _surplus(self, newcomer: str) -> list[Reject[Request]]:
        """Takes out what a full queue has no room for: bulk requests first."""
        limit = self.settings.max_queue_size or DEFAULT_MAX_QUEUE_SIZE
        rejected: list[Reject[Request]] = []
        for lane in (self._bulk, self._interactive):
            surplus = self.queued - limit
            if surplus > 0 and lane.queue:
                wait = self._expected_wait(
                    lane, lane.queue.ahead_of(lane.queue.waiting_of(newcomer) or len(lane.queue))
                )
                text = f"the queue is full ({limit} requests wait); try again later"
                victims = lane.queue.pop_newest_of_longest(newcomer, surplus)
                rejected += [Reject(each, Overloaded(text, retry_after_seconds=wait or None)) for each in victims]
        return rejected

    def _expected_wait(self, lane: Lane[Stream, Request], ahead: float) -> float:
        """Seconds until a request has its answer, with so many of its lane ahead; 0 where nothing is known."""
        return self._work.wait_behind(ahead + (len(self._interactive.queue) if lane is self._bulk else 0))


def _take(now: float, count: int, queue: FairQueue[Request]) -> tuple[Sequence[Request], Sequence[Reject[Request]]]:
    """Up to ``count`` requests that are worth sending, and those whose deadline has passed."""
    taken = queue.take(count)
    if not taken or min(map(DEADLINE, taken)) > now:
        return taken, ()
    text = "the deadline passed while the request was waiting for a worker"
    expired = [Reject(request, DeadlineExceeded(text)) for request in taken if request.deadline <= now]
    return [request for request in taken if request.deadline > now], expired
