"""The queue of one model and method, and the streams that serve it: carries out what the policy decides."""

from __future__ import annotations

import asyncio
import logging
import math
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from shoal.batcher import spans
from shoal.batcher.meter import count_strangers
from shoal.batcher.policy import MAX_ATTEMPTS, BatchingPolicy, Reject, Send
from shoal.batcher.queue_streams import QueueStreams
from shoal.batching import wire
from shoal.errors import Code, ConfigurationError, DeadlineExceeded, Internal, ShoalError, Unavailable, from_status
from shoal.modelconfig.batching import BatchingSettings
from shoal.runtime.deadlines import Deadlines
from shoal.runtime.logs import Seldom
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.batcher.batch_stream import BatchStream, End, StreamState
    from shoal.batcher.common import Common
    from shoal.batcher.meter import QueueMeter
    from shoal.batcher.policy import Close, Decision
    from shoal.batcher.request import Request
    from shoal.batching.v1 import batching_pb2

log = Seldom(logging.getLogger(__name__))

LOOK_SECONDS = 5.0
"""Between two looks at whether a queue is used, and how many streams it needs."""
IDLE_UNSERVED_SECONDS = 5.0
"""A queue that nobody waits in and no worker serves ends after so long."""
IDLE_SECONDS = 600.0
"""One that a worker serves keeps its streams for longer: they make the next request fast."""
_REFUSALS = frozenset({Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.UNIMPLEMENTED})
"""A parked stream that ends so says: no such model, or the model has no such method. No other would fare better."""
_STATUSES = frozenset(Code)


class ModelQueue:
    """The queue of one model and method: feeds events to its policy and carries out the decisions."""

    def __init__(
        self, common: Common, called: tuple[str, str], founder: str, ended: Callable[[ModelQueue], None]
    ) -> None:
        """Opens its first streams.

        Args:
            common: What all queues of this process share.
            called: The method and the model.
            founder: The owner of the request for which it is made.
            ended: Is told once the queue can't be used any more.
        """
        self.failure: ShoalError | None = None
        """Why this queue can't be used any more; make another."""
        self.founder = founder
        self.callers = 0
        """Requests that wait for their answer."""
        self._common = common
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._policy: BatchingPolicy[BatchStream, Request] = BatchingPolicy(BatchingSettings(), common.quarantine)
        self._settings = ""
        method, model = self.called = called
        self._model = model
        self._metadata = ((wire.MODEL, model), (wire.METHOD, method), (wire.TAKES, wire.EARLY))
        self._deadlines: Deadlines[Request] = Deadlines(self._loop, self._expire)
        self._used = monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = math.inf
        self._stopping = False
        self._meter: QueueMeter | None = None
        self._looking = self._loop.call_later(LOOK_SECONDS, self._look)
        self._streams: dict[Priority, QueueStreams] = {}
        self._open_streams(Priority.INTERACTIVE)

    @property
    def served(self) -> bool:
        """Whether a worker ever vouched for it."""
        return self._meter is not None

    @property
    def suspects(self) -> int:
        """Requests that wait to be sent alone."""
        return self._policy.suspects

    @property
    def queued(self) -> int:
        """Requests that wait for a permit."""
        return self._policy.queued

    @property
    def in_flight(self) -> int:
        """Requests at a worker."""
        return sum(streams.in_flight for streams in tuple(self._streams.values()))

    def streams(self, state: StreamState) -> int:
        """Streams in this state."""
        return sum(streams.count(state) for streams in tuple(self._streams.values()))

    def enter(self, requests: Sequence[Request]) -> None:
        """Takes requests, which came together; each gets its answer by its ``reply``, maybe before this returns."""
        now = self._used = monotonic()
        ahead = self._policy.queued
        for request in requests:
            request.ahead = ahead
        self._common.recent.extend(requests, [request.kept_bytes for request in requests])
        if self._common.tracing is not None:
            spans.begin(self._common.tracing, requests)
        self._deadlines.add(requests)
        self.callers += len(requests)
        if self._without_bulk and any(request.priority is Priority.BULK for request in requests):
            self._open_streams(Priority.BULK)
        self._carry_out(self._policy.arrived(now, requests))

    def leave(self, requests: Sequence[Request]) -> None:
        """Their callers don't wait any more. What is answered already is skipped; batch-mates never notice."""
        now = monotonic()
        left = [request for request in requests if not request.ended]
        for request in left:
            request.abandon(now)
        self._over(now, left)
        self._withdraw(now, left)

    def drain(self) -> None:
        """Nothing waits for company any more."""
        self._carry_out(self._policy.drain(monotonic()))

    def stop(self) -> None:
        """Ends all streams; requests that are still here are answered UNAVAILABLE."""
        self._stopping = True
        self._common.meters.remove(self._model, self)
        for handle in (self._timer, self._looking):
            if handle is not None:
                handle.cancel()
        self._carry_out(self._policy.fail(Unavailable("the batcher is stopping; try again")))
        for streams in self._streams.values():
            streams.stop()

    # What streams tell.

    def permitted(self, stream: BatchStream, batching: str) -> None:
        """A worker can take a batch."""
        if self._meter is None:
            self._meter = self._common.meters.of(self._model, self)
        if batching and batching != self._settings:
            self._configure(batching)
        self._carry_out(self._policy.permitted(monotonic(), stream, stream.worker, stream.priority))
        self._streams[stream.priority].succeeded()

    def executed(self, stream: BatchStream, engine_seconds: float, count: int, put_off: int) -> None:
        """A batch's first answers are here: see ``BatchingPolicy.executed``."""
        self._policy.executed(monotonic(), stream, engine_seconds, count, put_off)

    def stalled(self, stream: BatchStream) -> None:
        """Nothing of a batch was executed."""
        self._policy.stalled(monotonic(), stream)

    def answered(self, stream: BatchStream, results: Sequence[tuple[Request, batching_pb2.BatchItemResult]]) -> None:
        """A worker answered requests."""
        now = monotonic()
        waited = []
        size = 0
        for request, result in results:
            request.carrier = None
            if request.ended:
                continue
            waited.append(request)
            if result.code == Code.OK:
                response = result.response
                size += len(response)
                request.answer(now, response)
            else:
                code = Code(result.code) if result.code in _STATUSES else Code.INTERNAL
                request.fail(now, from_status(result.code, result.message), code)
        self._over(now, waited)
        self._served_meter.answer_bytes(size)
        if any(request.attempts for request, _ in results):
            self._carry_out(self._policy.settled(now, stream))

    def retiring(self, stream: BatchStream) -> None:
        """A stream takes no further batch."""
        self._streams[stream.priority].maintain()

    def ended(self, stream: BatchStream, end: End) -> None:
        """A stream is over, well or not."""
        streams = self._streams[stream.priority]
        streams.remove(stream)
        broken, unbegun = (self._take_back(requests) for requests in (end.broken, end.unbegun))
        if broken and not stream.abandoned:  # what ended from this side says nothing of its worker
            for each in self._streams.values():
                self._revoke(each.leave(stream.worker))
        self._carry_out(self._policy.lost(monotonic(), stream, broken, unbegun))
        if broken or unbegun:
            self._tell_of_break(end, broken, unbegun)
        if self._stopping:
            self._carry_out(self._policy.fail(Unavailable("the batcher is stopping; try again")))
        elif end.code in _REFUSALS and not stream.served:
            self._fail(from_status(end.code, end.message or f"model {self._model!r} is not served here"))
        else:
            if not stream.useful and not stream.abandoned and end.code != Code.OK:
                self._count_failure(streams, end.message)
            streams.maintain()

    # Inside.

    @property
    def _without_bulk(self) -> bool:
        return Priority.BULK not in self._streams

    def _open_streams(self, priority: Priority) -> None:
        """A queue's streams are of the one priority until requests of the other come.

        Each priority goes by a name of its own: an older worker knows of none, and would give the permits that one of
        them leaves unused to no other of the same name.
        """
        name = self._common.name
        more: tuple[tuple[str, str], ...] = ((wire.BATCHER, name),)
        if priority is not Priority.INTERACTIVE:
            more = (wire.BATCHER, f"{name} {priority.value}"), (wire.PRIORITY, priority.value)
        start = partial(self._common.open, metadata=(*self._metadata, *more))
        streams = self._streams[priority] = QueueStreams(start, self, self._loop, priority)
        streams.maintain()

    def _revoke(self, permitted: Sequence[BatchStream]) -> None:
        for stream in permitted:
            self._policy.revoked(stream)

    def _take_back(self, requests: Sequence[Request]) -> list[Request]:
        """Those of a stream that is over whose callers still wait."""
        now = monotonic()
        for request in requests:
            request.withdraw_from(now)
        return [request for request in requests if not request.ended]

    def _tell_of_break(self, end: End, broken: Sequence[Request], unbegun: Sequence[Request]) -> None:
        given_up = sum(request.attempts >= MAX_ATTEMPTS for request in broken)
        self._served_meter.given_up(given_up)
        self._served_meter.resent(len(broken) + len(unbegun) - given_up)
        text = "model %s: a stream broke under %d requests, %d of them given up: %s %s; it hadn't begun %d more"
        log.say(self.called, text, self._model, len(broken), given_up, end.code.name, end.message, len(unbegun))

    def _configure(self, batching: str) -> None:
        """Takes a worker's settings; where they can't be read, the last good ones stay."""
        self._settings = batching
        try:
            reading = wire.read_settings(batching)
        except ConfigurationError as error:
            text = "model %s: a worker's batching settings can't be read, so the last good ones stay: %s"
            log.say(("unreadable", self._model), text, self._model, error)
            return
        if reading.unknown:
            text = "model %s: a worker tells settings that this batcher, of another version, doesn't know: %s"
            log.say(("unknown", self._model, reading.unknown), text, self._model, ", ".join(reading.unknown)[:200])
        self._policy.configure(reading.settings)

    def _fail(self, error: ShoalError) -> None:
        self.failure = error
        self._carry_out(self._policy.fail(error))
        self.stop()
        self._ended(self)

    def end(self, error: ShoalError) -> None:
        """Makes room: closes its streams, and answers who still waits with ``error``."""
        if self.failure is None:
            self._fail(error)

    def wake(self) -> None:
        """A worker is free for a suspect."""
        if not self._stopping:
            self._carry_out(self._policy.tick(monotonic()))

    def _look(self) -> None:
        """Ends a queue that nobody uses, and closes streams beyond those that are of use."""
        idle = monotonic() - self._used
        working = self._meter is not None and self._has_worker
        if not self.callers and idle >= (IDLE_SECONDS if working else IDLE_UNSERVED_SECONDS):
            self.end(Unavailable("the queue was idle; try again"))
            return
        self._looking = self._loop.call_later(LOOK_SECONDS, self._look)
        for streams in self._streams.values():
            self._revoke(streams.turn())

    def _count_failure(self, streams: QueueStreams, message: str) -> None:
        down = streams.failed(message)
        if down and not self._has_worker:
            self._carry_out(self._policy.fail(Unavailable(f"no worker serves model {self._model!r} now: {message}")))

    def _expire(self, requests: Sequence[Request]) -> None:
        now = monotonic()
        error = DeadlineExceeded("the deadline passed before an answer came" + self._excuse())
        self._refuse(now, [(request, error) for request in requests])
        self._withdraw(now, requests)

    def _excuse(self) -> str:
        """Why nothing was answered, where that is known."""
        reason = None if self._has_worker else self._why_down
        return "" if reason is None else f": no worker serves model {self._model!r} now: {reason}"

    @property
    def _has_worker(self) -> bool:
        return any(streams.served for streams in self._streams.values())

    @property
    def _why_down(self) -> str | None:
        return next((why for streams in self._streams.values() if (why := streams.why_down)), None)

    def _withdraw(self, now: float, requests: Sequence[Request]) -> None:
        """Nobody waits for these."""
        for request in requests:
            request.withdraw()
        self._carry_out(self._policy.withdrawn(now, requests))

    def _refuse(self, now: float, refusals: Sequence[tuple[Request, ShoalError]]) -> None:
        waiting = [(request, error) for request, error in refusals if not request.ended]
        for request, error in waiting:
            request.fail(now, error)
        self._over(now, [request for request, _ in waiting])

    def _over(self, now: float, requests: Sequence[Request]) -> None:
        """These have ended, just now."""
        self._used = now
        self.callers -= len(requests)
        for request in requests:
            self._deadlines.remove(request)
        if self._common.tracing is not None:
            spans.end(requests)
        if self._meter is None:
            count_strangers(requests)
        else:
            self._meter.ended(requests)

    @property
    def _served_meter(self) -> QueueMeter:
        """Once a permit was there."""
        assert self._meter is not None
        return self._meter

    def _carry_out(self, decisions: Sequence[Decision[BatchStream, Request]]) -> None:
        """Each of them, whatever becomes of the others."""
        refusals: list[tuple[Request, ShoalError]] = []
        for decision in decisions:
            if isinstance(decision, Reject):
                refusals.append((decision.request, decision.error))
                continue
            try:
                self._send_or_close(decision)
            except Exception as error:
                refusals += self._give_up(decision, error)
        if refusals:
            self._refuse(monotonic(), refusals)
        self._schedule()

    def _send_or_close(self, decision: Send[BatchStream, Request] | Close[BatchStream]) -> None:
        stream = decision.stream
        if isinstance(decision, Send):
            stream.send(decision.requests)
            self._served_meter.sent(monotonic(), decision.requests)
            return
        stream.batch.close(decision.reason, self._policy.settings)
        stream.close()
        self._streams[stream.priority].batch_closed()
        self._served_meter.closed(decision.size, decision.reason)

    def _give_up(
        self, decision: Send[BatchStream, Request] | Close[BatchStream], error: Exception
    ) -> list[tuple[Request, ShoalError]]:
        """The decision can't be carried out, by a fault of the batcher's: how its requests are answered.

        Nobody knows how far it came, so its stream ends; what else was sent on it is sent again on another one.
        """
        fault = type(error).__name__
        log.say(fault, "model %s: a batch couldn't be sent by a fault of the batcher's", self._model, error=error)
        decision.stream.abandon()
        requests = decision.requests if isinstance(decision, Send) else ()
        return [(request, Internal(f"the batcher failed: {fault}")) for request in requests]

    def _schedule(self) -> None:
        if self._policy.wake_at == self._wake_at:
            return
        self._wake_at = self._policy.wake_at
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if math.isinf(self._wake_at) else self._loop.call_at(self._wake_at, self._tick)

    def _tick(self) -> None:
        self._wake_at = math.inf
        self._carry_out(self._policy.tick(monotonic()))
