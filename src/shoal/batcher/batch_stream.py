"""One batching stream, from its parking to its end: the only place of the batcher that talks to workers."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import sys
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import grpc

from shoal.batcher.request import SentBatch
from shoal.batching import wire
from shoal.batching.v1 import batching_pb2
from shoal.errors import Code
from shoal.runtime.logs import Seldom
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.batcher.request import Request

    Call = grpc.aio.StreamStreamCall[batching_pb2.BatchChunk, batching_pb2.BatchResultChunk]

log = Seldom(logging.getLogger(__name__))

StreamState = Literal["parked", "permitted", "in use", "retiring"]
RETIRE_SECONDS = (0.7, 1.3)
"""A stream that is older, spread so that not all go at once, is replaced after its batch: the load balancer places the
new one, so a worker that joined gets its share within about a second."""
_INTERACTIVE, _BULK = batching_pb2.PRIORITY_INTERACTIVE, batching_pb2.PRIORITY_BULK
_MAX_NAME = 128
_NUMBER = re.compile(r"[0-9]{1,10}")
_LOST = (grpc.RpcError, asyncio.InvalidStateError)


def opener(channel: grpc.aio.Channel) -> Callable[..., Any]:
    """What opens a batching stream, a ``Call``, on ``channel``."""
    return channel.stream_stream(
        wire.COMPUTE,
        request_serializer=batching_pb2.BatchChunk.SerializeToString,
        response_deserializer=batching_pb2.BatchResultChunk.FromString,
    )


class StreamListener(Protocol):
    """Who is told of a stream's life. Each is called on the event loop."""

    def permitted(self, stream: BatchStream, batching: str) -> None:
        """The worker can take a batch; ``batching`` is the JSON of the model's settings."""

    def executed(self, stream: BatchStream, engine_seconds: float, count: int, put_off: int) -> None:
        """The first answers are here; called before they are told.

        Args:
            stream: Which.
            engine_seconds: At the worker since the batch was ready for the engine; 0: it doesn't say.
            count: What was executed; 0: it doesn't say.
            put_off: What there was no room for.
        """

    def stalled(self, stream: BatchStream) -> None:
        """Nothing of the batch was executed: what answers are due come later, and other batches may go."""

    def answered(self, stream: BatchStream, results: Sequence[tuple[Request, batching_pb2.BatchItemResult]]) -> None:
        """The worker answered these requests."""

    def retiring(self, stream: BatchStream) -> None:
        """The stream carries no further batch, and ends once its stragglers are answered."""

    def ended(self, stream: BatchStream, end: End) -> None:
        """The stream is over; called exactly once."""


class End(NamedTuple):
    """How a stream ended."""

    code: Code
    message: str
    broken: Sequence[Request]
    """Not answered, and a worker may have begun them."""
    unbegun: Sequence[Request]
    """Not answered, and no worker has begun them: never written, or the worker said so."""


class BatchStream:
    """Carries one batch at a time, any number in turn. What is sent between two turns of the loop is one message."""

    def __init__(
        self,
        start: Callable[[], Call],
        listener: StreamListener,
        clock: asyncio.AbstractEventLoop,
        priority: Priority = Priority.INTERACTIVE,
    ) -> None:
        """Opens it with ``start`` in a task of its own, for batches that hold nothing more urgent than ``priority``."""
        self.priority = priority
        self.served = False
        """Whether a worker ever granted it a permit."""
        self.useful = False
        """Whether a worker ever answered an item of it."""
        self.abandoned = False
        """Whether it was ended from this side."""
        self.worker = ""
        """What the worker calls itself; a worker of an older version says nothing."""
        self.batch = SentBatch(0.0)
        """The one that it carries, or carried last."""
        self.state: StreamState = "parked"
        self._start = start
        self._listener = listener
        self._clock = clock
        self._retire_at = monotonic() + random.uniform(*RETIRE_SECONDS)  # not a secret
        self._takes_withdrawals = False
        self._unanswered: dict[int, Request] = {}
        self._outbox = [batching_pb2.BatchChunk()]
        self._outbox_bytes = 0
        self._sent = 0
        self._written = 0
        self._first = 0
        self._wake = asyncio.Event()
        self._task = clock.create_task(self._run())

    @property
    def in_flight(self) -> int:
        """Requests sent and not answered."""
        return len(self._unanswered)

    def send(self, requests: Sequence[Request]) -> None:
        """Adds requests to the batch."""
        now = monotonic()
        if self.state != "in use":
            self.state, self._first, self.batch = "in use", self._sent, SentBatch(now)
        batch = self.batch
        batch.size += len(requests)
        for index, request in enumerate(requests, self._sent):
            request.sent, request.batch = now, batch
            request.carrier, request.index = self, index
            queued_us, timeout_us = request.sent_as
            self._chunk_for(len(request.message)).items.add(
                index=index,
                request=request.message,
                owner=request.key_id,
                identity=request.caller.identity,
                timeout_us=timeout_us,
                queued_us=queued_us,
                traceparent=request.traceparent,
                priority=_BULK if request.priority is Priority.BULK else _INTERACTIVE,
            )
            self._unanswered[index] = request
        self._sent += len(requests)
        self._wake.set()

    def _chunk_for(self, size: int) -> batching_pb2.BatchChunk:
        """Where the next item goes."""
        if self._outbox_bytes + size > wire.CHUNK_BYTES:
            self._outbox.append(batching_pb2.BatchChunk())
            self._outbox_bytes = 0
        self._outbox_bytes += size
        return self._outbox[-1]

    def close(self) -> None:
        """Closes the batch; what was sent goes out first."""
        self._outbox[-1].last = True
        self._wake.set()

    def withdraw(self, index: int) -> None:
        """The caller of an item has left. What is withdrawn in one turn of the loop travels in one message."""
        if index not in self._unanswered or not self._takes_withdrawals:
            return
        if self.state != "retiring":
            self._outbox[-1].withdrawn.append(index)
            self._wake.set()
        elif all(request.ended for request in self._unanswered.values()):
            self.abandon()  # nothing more can be said on it, and nobody waits for what it still brings

    def retire(self) -> None:
        """Half-closes the stream, which carries no batch: nothing more is sent on it."""
        self.state = "retiring"
        self._wake.set()

    def abandon(self) -> None:
        """Ends the stream from this side."""
        self.abandoned = True
        self._task.cancel()

    async def _run(self) -> None:
        code, message, taken = Code.CANCELLED, "the batcher stopped", sys.maxsize
        call: Call | None = None
        writer: asyncio.Task[None] | None = None
        try:
            call = self._start()
            metadata = await call.initial_metadata()
            if not call.done():
                writer = self._clock.create_task(self._write(call))
                self._greet(dict(metadata))
                await self._read(call)
            code, message, taken = await _status(call)
        except _LOST:
            assert call is not None
            code, message, taken = await _status(call)
        except Exception as error:
            code, message, taken = Code.INTERNAL, f"the batcher failed: {type(error).__name__}", sys.maxsize
            log.say(type(error).__name__, "a stream ended by a fault of the batcher's", error=error)
        finally:
            if writer is not None:
                writer.cancel()
            if call is not None:
                call.cancel()
            self._listener.ended(self, self._end(code, message, min(taken, self._written)))

    def _greet(self, metadata: dict[str, str | bytes]) -> None:
        """The worker's first words, which are the first permit."""
        self.served = True
        self.worker = str(metadata.get(wire.WORKER, ""))[:_MAX_NAME]
        self._takes_withdrawals = wire.WITHDRAWN in str(metadata.get(wire.TAKES, "")).split(",")
        self._permitted(str(metadata.get(wire.SETTINGS, "")))

    def _end(self, code: Code, message: str, begun: int) -> End:
        unanswered = self._unanswered.items()
        broken = [request for index, request in unanswered if index < begun]
        return End(code, message, broken, [request for index, request in unanswered if index >= begun])

    async def _read(self, call: Call) -> None:
        while isinstance(chunk := await call.read(), batching_pb2.BatchResultChunk):
            self.useful = self.useful or bool(chunk.results)
            if self.state == "in use" and not chunk.early:
                self._came_through(chunk)
            take = self._unanswered.pop
            self._listener.answered(
                self, [(request, result) for result in chunk.results if (request := take(result.index, None))]
            )
            if chunk.permit:
                self._permitted("")

    def _came_through(self, chunk: batching_pb2.BatchResultChunk) -> None:
        """Perhaps the batch that it carries, rather than a straggler of an earlier one."""
        if not chunk.results and not chunk.engine_us:
            self.state = "parked"
            self._listener.stalled(self)
        elif not chunk.results or chunk.results[-1].index >= self._first:
            self.state = "parked"
            self._listener.executed(self, chunk.engine_us / 1e6, chunk.executed, chunk.put_off)

    def _permitted(self, batching: str) -> None:
        """Offers the permit, unless the stream is old: another may be placed better by now."""
        if self.served and not batching and monotonic() >= self._retire_at:
            self.retire()
            self._listener.retiring(self)
            return
        self.state = "permitted"
        self._listener.permitted(self, batching)

    async def _write(self, call: Call) -> None:
        with suppress(*_LOST):  # the reader learns why
            while self.state != "retiring":
                await self._wake.wait()
                self._wake.clear()
                chunks, self._outbox = self._outbox, [batching_pb2.BatchChunk()]
                self._outbox_bytes = 0
                for chunk in chunks:
                    if chunk.items:
                        self._written = chunk.items[-1].index + 1
                    if chunk.items or chunk.last or chunk.withdrawn:
                        await call.write(chunk)
            await call.done_writing()


async def _status(call: Call) -> tuple[Code, str, int]:
    """Code, message, and how many items the worker has begun, as far as it said so; else any number."""
    taken = dict(await call.trailing_metadata() or ()).get(wire.TAKEN, "")
    begun = int(taken) if isinstance(taken, str) and _NUMBER.fullmatch(taken) else sys.maxsize
    return Code((await call.code()).value[0]), await call.details() or "", begun
