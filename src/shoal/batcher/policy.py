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
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from shoal.batcher.learning import BatchTimes
from shoal.batcher.quarantine import Quarantine
from shoal.batching.fair_queue import FairQueue, Queued
from shoal.errors import DeadlineExceeded, Overloaded, ShoalError, Unavailable
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from shoal.modelconfig.batching import BatchingSettings

Stream = TypeVar("Stream", bound="Hashable")
Request = TypeVar("Request", bound=Queued)
CloseReason = Literal["preferred", "delay", "deadline", "drain", "alone"]

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


class _Permit(NamedTuple):
    worker: str
    priority: Priority


@dataclass(slots=True)
class _Batch(Generic[Stream]):
    stream: Stream
    oldest: float
    """When its oldest request arrived."""
    tightest: float = math.inf
    """Its earliest deadline."""
    size: int = 0
    closed: float = math.inf


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
        self._queue: FairQueue[Request] = FairQueue()
        self._suspects: FairQueue[Request] = FairQueue()
        self._quarantine = quarantine or Quarantine()
        self._alone_last = False
        """Whether the last batch that began was a suspect's: then it is the others' turn."""
        self._permits: dict[Stream, _Permit] = {}
        self._open: _Batch[Stream] | None = None
        self._closed: dict[Stream, _Batch[Stream]] = {}
        self._times = BatchTimes()
        self._draining = False
        self.configure(settings)

    def configure(self, settings: BatchingSettings) -> None:
        """Takes new settings; they hold from the next decision on."""
        self.settings = settings
        sizes = {size for size in settings.preferred_batch_size if 0 < size <= settings.max_batch_size}
        self._sizes = sorted(sizes) or [max(1, settings.max_batch_size)]
        self._delay = settings.max_queue_delay_microseconds / 1e6

    @property
    def queued(self) -> int:
        """Requests that wait for a permit, suspects included."""
        return len(self._queue) + len(self._suspects)

    @property
    def suspects(self) -> int:
        """Requests that wait to be sent alone."""
        return len(self._suspects)

    @property
    def idle_permits(self) -> int:
        """Permits that no batch uses yet."""
        return len(self._permits)

    def arrived(self, now: float, requests: Sequence[Request]) -> list[Decision[Stream, Request]]:
        """New requests, in order. A full queue makes room at the cost of whoever has most in it."""
        for request in requests:
            self._queue.append(request)
        decisions = self._advance(now)
        if self._queue and requests:
            decisions += self._hopeless(now, requests)
            decisions += self._surplus(requests[-1].owner)
        return decisions

    def withdrawn(self, now: float, requests: Sequence[Request]) -> list[Decision[Stream, Request]]:
        """The requests' callers are gone or their deadlines have passed; nothing happens to what was sent already."""
        for request in requests:
            self._home_of(request).discard(request)
        return self._advance(now)

    def permitted(
        self, now: float, stream: Stream, worker: str = "", priority: Priority = Priority.INTERACTIVE
    ) -> list[Decision[Stream, Request]]:
        """``worker`` can take a batch on ``stream``, whose class is ``priority``.

        Workers that don't say who they are count as one.
        """
        self._permits[stream] = _Permit(worker, priority)
        return self._advance(now)

    def settled(self, now: float, stream: Stream) -> list[Decision[Stream, Request]]:
        """The suspect on ``stream`` has its answer: the next one may go."""
        self._quarantine.leave(stream)
        return self._advance(now)

    def executed(self, now: float, stream: Stream) -> None:
        """The batch on ``stream`` has its first answers: all but stragglers are through."""
        if batch := self._closed.pop(stream, None):
            self._times.observe(batch.size, now - batch.closed)

    def stalled(self, stream: Stream) -> None:
        """The batch on ``stream`` is all stragglers: it is no work ahead of others, and teaches nothing about them."""
        self._closed.pop(stream, None)

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
        self._permits.pop(stream, None)
        self._closed.pop(stream, None)
        self._quarantine.leave(stream)
        if self._open is not None and self._open.stream == stream:
            self._open = None
        for request in reversed(unbegun):
            self._home_of(request).push_back(request)
        decisions: list[Decision[Stream, Request]] = []
        for request in unanswered:
            request.attempts += 1
            if request.attempts >= MAX_ATTEMPTS:
                decisions.append(Reject(request, Unavailable(_GIVEN_UP)))
            else:
                self._suspects.append(request)
        return decisions + self._advance(now)

    def revoked(self, stream: Stream) -> None:
        """The permit on ``stream``, which no batch uses, is given back."""
        self._permits.pop(stream, None)

    def tick(self, now: float) -> list[Decision[Stream, Request]]:
        """Time has passed: call it at ``wake_at`` or later."""
        return self._advance(now)

    def drain(self, now: float) -> list[Decision[Stream, Request]]:
        """From now on nothing waits for company."""
        self._draining = True
        return self._advance(now)

    def fail(self, error: ShoalError) -> list[Reject[Request]]:
        """Rejects all that is queued."""
        waiting = [*self._suspects.take(len(self._suspects)), *self._queue.take(len(self._queue))]
        return [Reject(request, error) for request in waiting]

    def _home_of(self, request: Request) -> FairQueue[Request]:
        """Where the request waits, if it does."""
        return self._suspects if request.attempts else self._queue

    def _advance(self, now: float) -> list[Decision[Stream, Request]]:
        decisions: list[Decision[Stream, Request]] = []
        while self._isolate(now, decisions) or (self._queue and self._grow(now, decisions)):
            pass
        if self._open is not None and (reason := self._due(now, self._open)):
            decisions.append(self._close(now, self._open, reason))
        self.wake_at = self._due_at(self._open) if self._open is not None else math.inf
        return decisions

    def _isolate(self, now: float, decisions: list[Decision[Stream, Request]]) -> bool:
        """Sends the next suspect as a batch of its own, in turn with the others' batches; whether to go on."""
        if not self._suspects or (self._alone_last and self._queue):
            return False
        free = (stream for stream, permit in self._permits.items() if self._quarantine.is_free(permit.worker))
        if (stream := next(free, None)) is None:
            return False
        requests, expired = self._take(now, 1, self._suspects)
        decisions.extend(expired)
        for request in requests:
            self._quarantine.enter(stream, self._permits.pop(stream).worker)
            self._alone_last = True
            self._closed[stream] = _Batch(stream, request.arrived, request.deadline, size=1, closed=now)
            decisions += [Send(stream, requests), Close(stream, 1, "alone")]
        return True

    def _grow(self, now: float, decisions: list[Decision[Stream, Request]]) -> bool:
        """Sends what fits into the open batch, opening one if a permit allows; whether to go on."""
        size = self._open.size if self._open else 0
        if self._open is None and not self._permits:
            return False
        target = self._target(size + len(self._queue))
        requests, expired = self._take(now, (target or size + len(self._queue)) - size, self._queue)
        decisions.extend(expired)
        if not requests:
            return bool(expired)
        batch = self._open = self._open or self._begin(requests)
        batch.size += len(requests)
        batch.oldest = min(batch.oldest, *(request.arrived for request in requests))
        batch.tightest = min(batch.tightest, *(request.deadline for request in requests))
        decisions.append(Send(batch.stream, requests))
        if reason := self._due(now, batch):
            decisions.append(self._close(now, batch, reason))
        return True

    def _hopeless(self, now: float, requests: Sequence[Request]) -> list[Decision[Stream, Request]]:
        """Takes out what has just come and can't be answered within its deadline."""
        if not self._closed:
            return []
        decisions: list[Decision[Stream, Request]] = []
        of: dict[str, list[Request]] = {}
        for request in requests:
            of.setdefault(request.owner, []).append(request)
        for owner, theirs in of.items():
            if now + self._expected_wait(owner) > min(request.deadline for request in theirs):
                decisions += self._too_late(now, theirs)
        return decisions

    def _too_late(self, now: float, requests: Sequence[Request]) -> list[Reject[Request]]:
        """Takes out those of one owner's newest that can't be answered in time, each as if the later ones weren't."""
        queued = [request for request in requests if self._queue.discard(request)]
        rejected = []
        for request in queued:
            self._queue.append(request)
            wait = self._expected_wait(request.owner)
            if now + wait > request.deadline:
                self._queue.discard(request)
                text = f"the deadline can't be met: about {wait:.1f} s of work are ahead; try again later"
                rejected.append(Reject(request, Overloaded(text, retry_after_seconds=wait)))
        return rejected

    def _surplus(self, newcomer: str) -> list[Reject[Request]]:
        """Takes out what a full queue has no room for."""
        limit = self.settings.max_queue_size or DEFAULT_MAX_QUEUE_SIZE
        rejected = []
        while self._queue and self.queued > limit:
            wait = self._expected_wait(newcomer)
            text = f"the queue is full ({limit} requests wait); try again later"
            victim = self._queue.pop_newest_of_longest(newcomer)
            rejected.append(Reject(victim, Overloaded(text, retry_after_seconds=wait or None)))
        return rejected

    def _expected_wait(self, owner: str) -> float:
        """Seconds until the newest request of ``owner`` has its answer; 0 where nothing is known or nothing waits.

        By Little's law the batches at work bring ``in flight / seconds of a batch`` answers a second.
        """
        if not self._queue or not self._closed:
            return 0.0
        in_flight = sum(batch.size for batch in self._closed.values())
        seconds = self._times.expected(in_flight // len(self._closed))
        return (self._queue.ahead_of_newest(owner) / in_flight + 1) * seconds

    def _target(self, available: int) -> int:
        """The largest preferred size that ``available`` requests fill; 0 if they fill none."""
        return max((size for size in self._sizes if size <= available), default=0)

    def _take(self, now: float, count: int, queue: FairQueue[Request]) -> tuple[list[Request], list[Reject[Request]]]:
        """Up to ``count`` requests that are worth sending, and those whose deadline has passed."""
        taken = queue.take(count)
        live = [request for request in taken if request.deadline > now]
        text = "the deadline passed while the request was waiting for a worker"
        return live, [Reject(request, DeadlineExceeded(text)) for request in taken if request.deadline <= now]

    def _begin(self, requests: Sequence[Request]) -> _Batch[Stream]:
        stream = next(iter(self._permits))
        del self._permits[stream]
        self._alone_last = False
        return _Batch(stream, requests[0].arrived)

    def _due(self, now: float, batch: _Batch[Stream]) -> CloseReason | None:
        if batch.size in self._sizes or batch.size >= self._sizes[-1]:
            return "preferred"
        if self._draining:
            return "drain"
        if now < self._due_at(batch):
            return None
        return "delay" if now >= batch.oldest + self._delay else "deadline"

    def _due_at(self, batch: _Batch[Stream]) -> float:
        """When it has to go: its oldest request has waited long enough, or its tightest deadline needs the rest."""
        return min(batch.oldest + self._delay, batch.tightest - self._times.cautious(batch.size))

    def _close(self, now: float, batch: _Batch[Stream], reason: CloseReason) -> Close[Stream]:
        self._open = None
        batch.closed = now
        self._closed[batch.stream] = batch
        return Close(batch.stream, batch.size, reason)
