"""When a batch opens, grows and closes: plain state fed with events, without I/O and without a clock of its own.

A batch exists only where a worker has said that it can take one, by a permit: so without one requests wait in the queue
and the next batch grows. When it closes says ``closing.py``. A batch goes early when its tightest deadline would
otherwise be missed, and a request that can't be served in time is refused when it comes, not when it is too late
(``refusals.py``).

Interactive and bulk requests have a *level* each, with streams and permits of its own, so that a bulk batch never takes
the place of an interactive one. A batch of interactive requests that closes part-full takes waiting bulk requests
along. Whose turn it is at an engine is the worker's affair: interactive batches go first, but for bulk's share.

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
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from shoal.batcher.affinities import Affinities
from shoal.batcher.closing import Closing
from shoal.batcher.level import DEADLINE, Level, OpenBatch
from shoal.batcher.quarantine import Quarantine
from shoal.batcher.refusals import Refusals
from shoal.batcher.workload import Workload
from shoal.batching.fair_queue import FairQueue, Queued
from shoal.errors import DeadlineExceeded, ShoalError, Unavailable
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from shoal.batcher.closing import CloseReason
    from shoal.modelconfig.batching import BatchingSettings

Stream = TypeVar("Stream", bound="Hashable")
Request = TypeVar("Request", bound=Queued)

DEFAULT_MAX_QUEUE_SIZE = 10_000
"""Where the model names no ``max_queue_size``: a queue has a bound."""
MAX_ATTEMPTS = 2
"""Streams that may break under one request before it is answered UNAVAILABLE: one in company, one alone."""
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
        self._late = 0.0
        """Seconds since then, where whoever calls comes later."""
        self._interactive: Level[Stream, Request] = Level(Priority.INTERACTIVE)
        self._bulk: Level[Stream, Request] = Level(Priority.BULK)
        self._in_order = (self._interactive, self._bulk)
        self._levels = {level.priority: level for level in self._in_order}
        self._quarantine = quarantine or Quarantine()
        self._work: Workload[Stream] = Workload()
        self._affinities = Affinities()
        self._closing = Closing(self._work, settings)
        self._refusals = Refusals(self._interactive, self._bulk, self._work)
        self.configure(settings)

    def configure(self, settings: BatchingSettings) -> None:
        """Takes new settings; they hold from the next decision on."""
        self.settings = settings
        self._closing.configure(settings)
        self._work.instances = settings.instance_count

    @property
    def queued(self) -> int:
        """Requests that wait for a permit, suspects included."""
        return self._interactive.waiting + self._bulk.waiting

    @property
    def suspects(self) -> int:
        """Requests that wait to be sent alone."""
        return sum(len(level.suspects) for level in self._levels.values())

    @property
    def idle_permits(self) -> int:
        """Permits that no batch uses yet."""
        return sum(len(level.permits) for level in self._levels.values())

    def arrived(self, now: float, requests: Sequence[Request]) -> list[Decision[Stream, Request]]:
        """New requests, in order. A full queue makes room at the cost of bulk, and of whoever has most in it."""
        for request in requests:
            self._levels[request.priority].queue.append(request)
        self._closing.arrived(now, requests)
        decisions = self._advance(now)
        if requests and (self._interactive.queue or self._bulk.queue):
            limit = self.settings.max_queue_size or DEFAULT_MAX_QUEUE_SIZE
            decisions += [Reject(*refused) for refused in self._refusals.hopeless(now, requests)]
            if self.queued > limit:
                decisions += [Reject(*refused) for refused in self._refusals.surplus(limit, requests[-1].owner)]
        return decisions

    def withdrawn(self, now: float, requests: Sequence[Request]) -> list[Decision[Stream, Request]]:
        """The requests' callers are gone or their deadlines have passed; nothing happens to what was sent already."""
        for request in requests:
            self._levels[request.priority].home_of(request).discard(request)
        return self._advance(now)

    def permitted(
        self, now: float, stream: Stream, worker: str = "", priority: Priority = Priority.INTERACTIVE
    ) -> list[Decision[Stream, Request]]:
        """``worker`` can take a batch on ``stream``, of which ``priority`` says what its batches begin with.

        Workers that don't say who they are count as one.
        """
        self._levels[priority].permits[stream] = worker
        return self._advance(now)

    def settled(self, now: float, stream: Stream) -> list[Decision[Stream, Request]]:
        """The suspect on ``stream`` has its answer: the next one may go."""
        self._quarantine.leave(stream)
        return self._advance(now)

    def executed(
        self, now: float, stream: Stream, engine_seconds: float = 0.0, count: int = 0, put_off: int = 0
    ) -> None:
        """The batch on ``stream`` has its first answers: all but stragglers are through.

        Args:
            now: The time.
            stream: Which.
            engine_seconds: At its worker since it was ready for the engine; 0: the worker doesn't say.
            count: What was executed: fewer than were sent, where answers were known; 0: the worker doesn't say.
            put_off: What is executed later, since there was no room for it.
        """
        self._work.executed(now, stream, engine_seconds, count, put_off)
        self._closing.learned()

    def stalled(self, now: float, stream: Stream) -> None:
        """Nothing of the batch on ``stream`` was executed: it is no work ahead of others, and teaches nothing."""
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
        for level in self._levels.values():
            level.forget(stream)
        for request in reversed(unbegun):
            self._levels[request.priority].home_of(request).push_back(request)
        decisions: list[Decision[Stream, Request]] = []
        for request in unanswered:
            request.attempts += 1
            if request.attempts >= MAX_ATTEMPTS:
                decisions.append(Reject(request, Unavailable(_GIVEN_UP)))
            else:
                self._levels[request.priority].suspects.append(request)
        return decisions + self._advance(now)

    def revoked(self, stream: Stream) -> None:
        """The permit on ``stream``, which no batch uses, is given back."""
        for level in self._levels.values():
            level.permits.pop(stream, None)

    def tick(self, now: float) -> list[Decision[Stream, Request]]:
        """Time has passed: call it at ``wake_at`` or later."""
        return self._advance(now)

    def drain(self, now: float) -> list[Decision[Stream, Request]]:
        """From now on nothing waits for company."""
        self._closing.draining = True
        return self._advance(now)

    def fail(self, error: ShoalError) -> list[Reject[Request]]:
        """Rejects all that is queued."""
        queues = [queue for level in self._levels.values() for queue in (level.suspects, level.queue)]
        return [Reject(request, error) for queue in queues for request in queue.take(len(queue))]

    # From the queue to a batch.

    def _advance(self, now: float) -> list[Decision[Stream, Request]]:
        decisions: list[Decision[Stream, Request]] = []
        self._late = max(0.0, now - self.wake_at)
        for level in self._in_order:
            while (level.suspects and self._isolate(now, level, decisions)) or (
                level.queue and self._grow(now, level, decisions)
            ):
                pass
        self.wake_at = math.inf
        for level in self._in_order:  # what waits in the second level fills a batch of the first
            if level.open is not None:
                self.wake_at = min(self.wake_at, self._close_when_due(now, level, level.open, decisions))
        return decisions

    def _isolate(self, now: float, level: Level[Stream, Request], decisions: list[Decision[Stream, Request]]) -> bool:
        """Sends the next suspect as a batch of its own, in turn with the others' batches; whether to go on."""
        if level.alone_last and level.queue:
            return False
        free = (stream for stream, worker in level.permits.items() if self._quarantine.is_free(worker))
        if (stream := next(free, None)) is None:
            return False
        requests, expired = _take(now, 1, level.suspects)
        decisions += expired
        if requests:
            level.alone_last = True
            worker = level.permits.pop(stream)
            self._quarantine.enter(stream, worker)
            self._work.add(now, stream, worker or stream, 1, level.priority)
            decisions += [Send(stream, requests), Close(stream, 1, "alone")]
        return True

    def _grow(self, now: float, level: Level[Stream, Request], decisions: list[Decision[Stream, Request]]) -> bool:
        """Sends what fits into the open batch, opening one if a permit allows; whether to go on."""
        batch = level.open or self._begin(now, level)
        if batch is None:
            return False
        waiting, oldest, fill = len(level.queue), level.queue.head().arrived, self._fill_of(level)
        size, closes = self._closing.size(now, batch, waiting, oldest, fill)
        count = size - batch.size
        answered_by = self._answered_by(now, batch, size) if waiting > count else now
        requests, refused = _take(now, count, level.queue, answered_by)
        decisions += refused
        if requests:
            if level.open is None:
                level.open = batch
                batch.opened = now
                level.alone_last = False
                del level.permits[batch.stream]
            batch.grow(requests)
            if isinstance(batch.worker, str) and batch.worker != batch.stream:  # else it tells no name
                self._affinities.sent(requests, batch.worker)
            decisions.append(Send(batch.stream, requests))
        if level.open is not None and closes:
            self._close(now, level, batch, "objective", decisions, now)
        elif level.open is not None and (level.queue or self._bulk.waiting):  # else whoever called sees to it next
            self._close_when_due(now, level, batch, decisions)
        return level.open is None or bool(requests or refused)

    def _begin(self, now: float, level: Level[Stream, Request]) -> OpenBatch[Stream] | None:
        """A batch on one of the permits, if there is any."""
        if not level.permits:
            return None
        gather = self._closing.objective and not self._fill_of(level)
        stream = self._fullest(now, level) if gather else self._emptiest(now, level)
        return OpenBatch(stream, level.permits[stream] or stream, level.priority)

    def _emptiest(self, now: float, level: Level[Stream, Request]) -> Stream:
        """The permit whose worker can start first; of several one that the first request suits, else the oldest."""
        wanted = self._affinities.wanted(level.queue.head())
        idle = (stream for stream, worker in level.permits.items() if not self._work.at(worker or stream))
        first = next(idle, None)
        if first is None:
            free_at = {stream: self._free_at(now, level, stream) for stream in level.permits}
            return min(free_at, key=lambda stream: (free_at[stream], level.permits[stream] != wanted))
        if not wanted or self._work.at(wanted):
            return first
        return next((stream for stream, worker in level.permits.items() if worker == wanted), first)

    def _fullest(self, now: float, level: Level[Stream, Request]) -> Stream:
        """The permit whose worker has most to do and can still keep the promise; where none can, the first to start.

        Of several one that the first request suits, else the first by its name: so the same workers stay idle, and can
        be taken away.
        """
        latest = self._closing.latest_start(level.queue.head().arrived)
        free_at = {stream: self._free_at(now, level, stream) for stream in level.permits}
        able = [stream for stream, at in free_at.items() if at <= latest]
        if not able:
            return min(free_at, key=free_at.__getitem__)
        wanted = self._affinities.wanted(level.queue.head())

        def rank(stream: Stream) -> tuple[int, bool, str]:
            worker = level.permits[stream]
            return -self._work.at(worker or stream), worker != wanted, worker

        return min(able, key=rank)

    def _free_at(self, now: float, level: Level[Stream, Request], stream: Stream) -> float:
        return self._work.free_at(now, level.permits[stream] or stream, level.priority)

    def _answered_by(self, now: float, batch: OpenBatch[Stream], size: int) -> float:
        """When the answers of a batch that is closed now would come, as expected; now, where nothing is known."""
        if not self._work.times.known:
            return now
        return self._work.free_at(now, batch.worker, batch.priority) + self._work.times.expected(size)

    def _fill_of(self, level: Level[Stream, Request]) -> int:
        """Requests of the other level that could fill a batch of this one."""
        return len(self._bulk.queue) if level is self._interactive else 0

    def _close_when_due(
        self,
        now: float,
        level: Level[Stream, Request],
        batch: OpenBatch[Stream],
        decisions: list[Decision[Stream, Request]],
    ) -> float:
        """Closes the open batch if it is due, else says when it will be."""
        at, reason = self._closing.due(now, batch, self._fill_of(level))
        if now < at:
            return at
        self._close(now, level, batch, reason, decisions, max(at, now - self._late))
        return math.inf

    def _close(
        self,
        now: float,
        level: Level[Stream, Request],
        batch: OpenBatch[Stream],
        reason: CloseReason,
        decisions: list[Decision[Stream, Request]],
        due: float,
    ) -> None:
        level.open = None
        size = batch.size
        if room := self._closing.room(now, batch, self._fill_of(level)):
            requests, expired = _take(now, room, self._bulk.queue)
            decisions += [*expired, Send(batch.stream, requests)] if requests else expired
            size += len(requests)
        self._work.add(now, batch.stream, batch.worker, size, level.priority, due)
        decisions.append(Close(batch.stream, size, reason))


def _take(
    now: float, count: int, queue: FairQueue[Request], answered_by: float = 0.0
) -> tuple[Sequence[Request], Sequence[Reject[Request]]]:
    """Up to ``count`` requests that are worth sending, and those ahead of them that aren't.

    A request whose answer would come too late makes room for the next one. Where none is left to take its place it is
    sent all the same: what was expected may be wrong, and only answers correct it.
    """
    taken: list[Request] = []
    refused: list[Reject[Request]] = []
    while len(taken) < count and queue:
        more = queue.take(count - len(taken))
        worth = max(now, answered_by) if queue else now
        if min(map(DEADLINE, more)) > worth:
            return [*taken, *more], refused
        refused += [
            Reject(request, _too_late(now, answered_by, request)) for request in more if request.deadline <= worth
        ]
        taken += [request for request in more if request.deadline > worth]
    return taken, refused


def _too_late(now: float, answered_by: float, request: Queued) -> DeadlineExceeded:
    if request.deadline <= now:
        return DeadlineExceeded("the deadline passed while the request was waiting for a worker")
    left, needed = (1000 * (at - now) for at in (request.deadline, answered_by))
    return DeadlineExceeded(f"{left:.0f} ms were left when its turn came, and an answer takes about {needed:.0f} ms")
