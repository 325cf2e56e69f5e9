"""Carries out what the policy decides: one queue a model and method, and the streams that serve it."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from time import monotonic
from typing import TYPE_CHECKING

from shoal.batcher.meter import Meters, count_stranger
from shoal.batcher.policy import BatchingPolicy, Close, Reject, Send
from shoal.batcher.request import Request
from shoal.batcher.stream import BatchStream, opener
from shoal.batching.settings import BatchingSettings
from shoal.errors import Code, DeadlineExceeded, Overloaded, ShoalError, Unavailable, from_status
from shoal.explain.recent import Recent
from shoal.identity import Caller

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

    from shoal.batcher.meter import QueueMeter
    from shoal.batcher.policy import Decision
    from shoal.batcher.stream import StreamState
    from shoal.batching.v1 import batching_pb2

log = logging.getLogger(__name__)

SPARE_STREAMS = 2
"""Streams kept parked beyond those that hold a permit, so that a slot that becomes free is answered at once."""
MAX_STREAMS = 1024
"""Of one queue: bounds what a pool of any size can make a batcher open."""
MAX_QUEUES = 1024
"""Bounds what callers can make a batcher keep who invent methods while no worker is there to refuse them."""
NO_WORKER_SECONDS = 5.0
"""After this long without any worker, waiting requests are answered UNAVAILABLE; the client may try again."""
_REFUSALS = frozenset({Code.NOT_FOUND, Code.INVALID_ARGUMENT})
"""Of a parked stream: no such model, or the model has no such method. No other stream would fare better."""
_NOBODY = Caller()
_BACKOFF_SECONDS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0)


class ModelQueue:
    """The queue of one model and method: feeds events to its policy and carries out the decisions."""

    def __init__(
        self, channel: grpc.aio.Channel, called: tuple[str, str], batcher: str, recent: Recent[Request], meters: Meters
    ) -> None:
        self.failure: ShoalError | None = None
        """Why this queue can't be used any more; make another."""
        self._loop = asyncio.get_running_loop()
        self._policy: BatchingPolicy[BatchStream, Request] = BatchingPolicy(BatchingSettings())
        self._settings = ""
        method, model = self._called = called
        self._model = model
        self._recent = recent
        self._over: asyncio.Future[bytes] = self._loop.create_future()
        self._over.cancel()
        self._metadata = (("x-model-name", model), ("x-shoal-method", method), ("x-shoal-batcher", batcher))
        self._open = opener(channel)
        self._streams: set[BatchStream] = set()
        self._target = SPARE_STREAMS
        self._failures = 0
        self._down_since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at = math.inf
        self._retry: asyncio.TimerHandle | None = None
        self._stopping = False
        self._meters = meters
        self._meter: QueueMeter | None = None
        self._maintain()

    @property
    def queued(self) -> int:
        """Requests that wait for a permit."""
        return self._policy.queued

    @property
    def in_flight(self) -> int:
        """Requests at a worker."""
        return sum(stream.in_flight for stream in tuple(self._streams))

    def streams(self, state: StreamState) -> int:
        """Streams in this state."""
        return sum(stream.state == state for stream in tuple(self._streams))

    async def submit(
        self, owner: str, message: bytes, timeout_seconds: float, traceparent: str = "", caller: Caller = _NOBODY
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
            called=self._called,
            ahead=self._policy.queued,
        )
        self._recent.add(request, len(message))
        timer = self._loop.call_at(request.deadline, self._expire, request)
        self._carry_out(self._policy.arrived(now, request))
        try:
            return await request.answer
        finally:
            timer.cancel()
            if request.answer.cancelled():
                request.end(Code.CANCELLED, "the caller went away")
                self._count(request)
                self._carry_out(self._policy.withdrawn(monotonic(), request))
            request.answer = self._over  # it is remembered, its answer isn't

    def drain(self) -> None:
        """Nothing waits for company any more."""
        self._carry_out(self._policy.drain(monotonic()))

    def stop(self) -> None:
        """Ends all streams; requests that are still here are answered UNAVAILABLE."""
        self._stopping = True
        self._meters.forget(self._model, self)
        for handle in (self._timer, self._retry):
            if handle is not None:
                handle.cancel()
        self._carry_out(self._policy.fail(Unavailable("the batcher is stopping; try again")))
        for stream in list(self._streams):
            stream.abandon()

    # What streams tell.

    def permitted(self, stream: BatchStream, batching: str) -> None:
        """A worker can take a batch."""
        self._failures = 0
        self._down_since = None
        if self._meter is None:
            self._meter = self._meters.of(self._model, self)
        if batching and batching != self._settings:
            self._settings = batching
            self._policy.configure(_settings(batching))
        self._carry_out(self._policy.permitted(monotonic(), stream))
        busy = sum(other.state in {"permitted", "in use"} for other in self._streams)
        self._target = min(MAX_STREAMS, max(self._target, busy + SPARE_STREAMS))
        self._maintain()

    def executed(self, stream: BatchStream) -> None:
        """A batch's first answers are here."""
        self._policy.executed(monotonic(), stream)

    def set_aside(self, stream: BatchStream) -> None:
        """A batch waits for something else than the engine."""
        self._policy.set_aside(stream)

    def answered(self, request: Request, result: batching_pb2.BatchItemResult) -> None:
        """A worker answered one request."""
        if request.answer.done():
            return
        request.end(Code(result.code), result.message)
        self._count(request, result.response)
        if result.code == Code.OK:
            request.answer.set_result(result.response)
        else:
            request.answer.set_exception(from_status(result.code, result.message))

    def retiring(self, stream: BatchStream) -> None:  # noqa: ARG002 - any that retires makes room
        """A stream takes no further batch."""
        self._maintain()

    def ended(self, stream: BatchStream, code: Code, message: str, unanswered: Sequence[Request]) -> None:
        """A stream is over, well or not."""
        self._streams.discard(stream)
        waiting = [request for request in unanswered if not request.answer.done()]
        if waiting:
            now = monotonic()
            for request in waiting:
                request.withdraw_from(now)
            self._served_meter.resent(len(waiting))
            log.warning(
                "model %s: a stream broke under %d requests: %s %s", self._model, len(waiting), code.name, message
            )
        self._carry_out(self._policy.lost(monotonic(), stream, waiting))
        if self._stopping:
            self._carry_out(self._policy.fail(Unavailable("the batcher is stopping; try again")))
        elif code in _REFUSALS and not stream.served:
            self._fail(from_status(code, message or f"model {self._model!r} is not served here"))
        else:
            if not stream.served:
                self._count_failure(message)
            self._maintain()

    # Inside.

    def _fail(self, error: ShoalError) -> None:
        self.failure = error
        self._carry_out(self._policy.fail(error))
        self.stop()

    def _count_failure(self, message: str) -> None:
        now = monotonic()
        self._failures += 1
        self._down_since = self._down_since or now
        idle = not any(stream.served for stream in self._streams)
        if idle and now - self._down_since >= NO_WORKER_SECONDS:
            self._carry_out(self._policy.fail(Unavailable(f"no worker serves model {self._model!r} now: {message}")))

    def _maintain(self) -> None:
        """Opens streams up to the target, later if the last ones failed."""
        if self._stopping or self._retry is not None:
            return
        delay = _BACKOFF_SECONDS[min(self._failures, len(_BACKOFF_SECONDS) - 1)]
        if delay:
            self._retry = self._loop.call_later(delay, self._reopen)
        else:
            self._fill(self._target)

    def _reopen(self) -> None:
        self._retry = None
        self._fill(self._staying + 1)  # one probe, until a worker answers again

    def _fill(self, count: int) -> None:
        for _ in range(min(count, self._target) - self._staying):
            self._streams.add(BatchStream(self._open(metadata=self._metadata), self, self._loop))

    @property
    def _staying(self) -> int:
        """Streams that carry batches or wait for their turn. A retiring one may wait long for its stragglers."""
        return sum(stream.state != "retiring" for stream in self._streams)

    def _expire(self, request: Request) -> None:
        if not request.answer.done():
            self._answer_error(request, DeadlineExceeded("the deadline passed before an answer came"))
            self._carry_out(self._policy.withdrawn(monotonic(), request))

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
                case Send(stream, entries):
                    self._served_meter.sent(monotonic(), entries)
                    stream.send(entries)
                case Close(stream, size, reason):
                    self._served_meter.closed(size, reason)
                    stream.batch.close(reason, self._policy.settings)
                    stream.close()
                case Reject(entry, error):
                    self._answer_error(entry, error)
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


class Dispatcher:
    """All queues of one batcher process."""

    def __init__(self, channel: grpc.aio.Channel, name: str, remembered: int = 0) -> None:
        """Prepares; nothing is connected yet.

        Args:
            channel: To the load balancer.
            name: Names this process to workers.
            remembered: Requests kept in ``recent``, at most.
        """
        self.in_flight = 0
        self.recent: Recent[Request] = Recent(remembered)
        self._channel = channel
        self._name = name
        self._meters = Meters()
        self._queues: dict[tuple[str, str], ModelQueue] = {}

    async def submit(
        self,
        method: str,
        model: str,
        owner: str,
        message: bytes,
        timeout_seconds: float,
        traceparent: str = "",
        caller: Caller = _NOBODY,
    ) -> bytes:
        """Answers one unary call of ``method``, batched with others of the same model and method.

        ``owner`` names, in any form, whose share of the queue it takes.
        """
        queue = self._queues.get((method, model))
        if queue is None or queue.failure:
            queue = self._add(method, model)
        self.in_flight += 1
        try:
            return await queue.submit(owner, message, timeout_seconds, traceparent, caller)
        finally:
            self.in_flight -= 1
            if queue.failure and self._queues.get((method, model)) is queue:
                del self._queues[method, model]

    def _add(self, method: str, model: str) -> ModelQueue:
        self._queues = {key: queue for key, queue in self._queues.items() if not queue.failure}
        if len(self._queues) >= MAX_QUEUES:
            raise Overloaded(f"{MAX_QUEUES} methods are being called already; try again later")
        queue = self._queues[method, model] = ModelQueue(
            self._channel, (method, model), self._name, self.recent, self._meters
        )
        return queue

    def drain(self) -> None:
        """From now on batches close at once."""
        for queue in self._queues.values():
            queue.drain()

    async def close(self) -> None:
        """Ends all streams."""
        for queue in self._queues.values():
            queue.stop()
        await self._channel.close()


def _settings(text: str) -> BatchingSettings:
    fields = json.loads(text)
    fields["preferred_batch_size"] = tuple(fields.get("preferred_batch_size", ()))
    return BatchingSettings(**fields)
