"""The queue of one model and method, and the streams that serve it: carries out what the policy decides."""

from __future__ import annotations

import asyncio
import logging
import math
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from shoal.batcher.batch_stream import BatchStream
from shoal.batcher.meter import count_stranger
from shoal.batcher.policy import MAX_ATTEMPTS, BatchingPolicy, Close, Reject, Send
from shoal.batcher.queue_streams import QueueStreams
from shoal.batcher.request import Request
from shoal.batching import wire
from shoal.errors import Code, ConfigurationError, DeadlineExceeded, ShoalError, Unavailable, from_status
from shoal.modelconfig.batching import BatchingSettings
from shoal.runtime.logs import Seldom
from shoal.service.identity import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.batcher.batch_stream import End, StreamState
    from shoal.batcher.common import Common
    from shoal.batcher.meter import QueueMeter
    from shoal.batcher.policy import Decision
    from shoal.batching.v1 import batching_pb2
    from shoal.service.identity import CallerId

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
        self._over: asyncio.Future[bytes] = self._loop.create_future()
        self._over.cancel()
        metadata = ((wire.MODEL, model), (wire.METHOD, method), (wire.BATCHER, common.name))
        self._streams = QueueStreams(partial(common.open, metadata=metadata), self, self._loop)
        self._used = monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = math.inf
        self._stopping = False
        self._meter: QueueMeter | None = None
        self._looking = self._loop.call_later(LOOK_SECONDS, self._look)
        self._streams.maintain()

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
        return self._streams.in_flight

    def streams(self, state: StreamState) -> int:
        """Streams in this state."""
        return self._streams.count(state)

    async def submit(
        self, owner: str, message: bytes, timeout_seconds: float, traceparent: str = "", caller: CallerId = NOBODY
    ) -> bytes:
        """Answers one request with its response message, or raises the ShoalError of its status.

        Cancelling the caller withdraws the request; its batch-mates never notice.
        """
        now = monotonic()
        request = Request(
            owner=owner,
            arrived=now,
            deadline=now + timeout_seconds,
            message=message,
            answer=self._loop.create_future(),
            traceparent=traceparent,
            caller=caller,
            called=self.called,
            ahead=self._policy.queued,
        )
        self._common.recent.add(request, request.kept_bytes)
        timer = self._loop.call_at(request.deadline, self._expire, request)
        self._carry_out(self._policy.arrived(now, (request,)))
        self.callers += 1
        try:
            return await request.answer
        finally:
            self.callers -= 1
            self._used = monotonic()
            timer.cancel()
            if request.answer.cancelled():
                request.end(Code.CANCELLED, "the caller went away")
                self._count(request)
                self._withdraw(request)
            request.answer = self._over  # it is remembered, its answer isn't

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
        self._streams.stop()

    # What streams tell.

    def permitted(self, stream: BatchStream, batching: str) -> None:
        """A worker can take a batch."""
        if self._meter is None:
            self._meter = self._common.meters.of(self._model, self)
        if batching and batching != self._settings:
            self._configure(batching)
        self._carry_out(self._policy.permitted(monotonic(), stream, stream.worker))
        self._streams.succeeded()

    def executed(self, stream: BatchStream) -> None:
        """A batch's first answers are here."""
        self._policy.executed(monotonic(), stream)

    def stalled(self, stream: BatchStream) -> None:
        """A batch is all stragglers."""
        self._policy.stalled(monotonic(), stream)

    def answered(self, request: Request, result: batching_pb2.BatchItemResult) -> None:
        """A worker answered one request."""
        request.carrier, stream = None, request.carrier
        if not request.answer.done():
            request.end(Code(result.code) if result.code in _STATUSES else Code.INTERNAL, result.message)
            self._count(request, result.response)
            if result.code == Code.OK:
                request.answer.set_result(result.response)
            else:
                request.answer.set_exception(from_status(result.code, result.message))
        if request.attempts and isinstance(stream, BatchStream):
            self._carry_out(self._policy.settled(monotonic(), stream))

    def retiring(self, stream: BatchStream) -> None:  # noqa: ARG002 - any that retires makes room
        """A stream takes no further batch."""
        self._streams.maintain()

    def ended(self, stream: BatchStream, end: End) -> None:
        """A stream is over, well or not."""
        self._streams.remove(stream)
        broken, unbegun = (self._take_back(requests) for requests in (end.broken, end.unbegun))
        if broken and not stream.abandoned:  # what ended from this side says nothing of its worker
            self._revoke(self._streams.leave(stream.worker))
        self._carry_out(self._policy.lost(monotonic(), stream, broken, unbegun))
        if broken or unbegun:
            self._tell_of_break(end, broken, unbegun)
        if self._stopping:
            self._carry_out(self._policy.fail(Unavailable("the batcher is stopping; try again")))
        elif end.code in _REFUSALS and not stream.served:
            self._fail(from_status(end.code, end.message or f"model {self._model!r} is not served here"))
        else:
            if not stream.useful and not stream.abandoned and end.code != Code.OK:
                self._count_failure(end.message)
            self._streams.maintain()

    # Inside.

    def _revoke(self, permitted: Sequence[BatchStream]) -> None:
        for stream in permitted:
            self._policy.revoked(stream)

    def _take_back(self, requests: Sequence[Request]) -> list[Request]:
        """Those of a stream that is over whose callers still wait."""
        now = monotonic()
        for request in requests:
            request.withdraw_from(now)
        return [request for request in requests if not request.answer.done()]

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
        working = self._meter is not None and self._streams.served
        if not self.callers and idle >= (IDLE_SECONDS if working else IDLE_UNSERVED_SECONDS):
            self.end(Unavailable("the queue was idle; try again"))
            return
        self._looking = self._loop.call_later(LOOK_SECONDS, self._look)
        self._revoke(self._streams.turn())

    def _count_failure(self, message: str) -> None:
        if self._streams.failed(message):
            self._carry_out(self._policy.fail(Unavailable(f"no worker serves model {self._model!r} now: {message}")))

    def _expire(self, request: Request) -> None:
        if not request.answer.done():
            self._answer_error(request, DeadlineExceeded("the deadline passed before an answer came" + self._excuse()))
            self._withdraw(request)

    def _excuse(self) -> str:
        """Why nothing was answered, where that is known."""
        reason = self._streams.why_down
        return "" if reason is None else f": no worker serves model {self._model!r} now: {reason}"

    def _withdraw(self, request: Request) -> None:
        request.withdraw()
        self._carry_out(self._policy.withdrawn(monotonic(), (request,)))

    def _answer_error(self, request: Request, error: ShoalError) -> None:
        if not request.answer.done():
            request.end(error.code, str(error))
            self._count(request)
            request.answer.set_exception(error)

    def _count(self, request: Request, response: bytes = b"") -> None:
        if self._meter is None:
            count_stranger(request.code)
        else:
            self._meter.answered(request, response)

    @property
    def _served_meter(self) -> QueueMeter:
        """Once a permit was there."""
        assert self._meter is not None
        return self._meter

    def _carry_out(self, decisions: Sequence[Decision[BatchStream, Request]]) -> None:
        for decision in decisions:
            match decision:
                case Send(stream, requests):
                    self._served_meter.sent(monotonic(), requests)
                    stream.send(requests)
                case Close(stream, size, reason):
                    self._served_meter.closed(size, reason)
                    stream.batch.close(reason, self._policy.settings)
                    stream.close()
                    self._streams.batch_closed()
                case Reject(request, error):
                    self._answer_error(request, error)
        self._schedule()

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
