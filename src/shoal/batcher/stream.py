"""One batching stream, from its parking to its end: the only place of the batcher that talks to workers."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, Protocol

import grpc

from shoal.batcher.request import SentBatch
from shoal.batching.v1 import batching_pb2
from shoal.errors import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.batcher.request import Request

    Call = grpc.aio.StreamStreamCall[batching_pb2.BatchChunk, batching_pb2.BatchResultChunk]

StreamState = Literal["parked", "permitted", "in use", "retiring"]
RETIRE_SECONDS = (0.7, 1.3)
"""A stream that is older, spread so that not all go at once, is replaced after its batch: the load balancer places the
new one, so a worker that joined gets its share within about a second."""
MAX_CHUNK_BYTES = 2**20
"""Of the requests in one message; a larger batch takes several. Workers take messages of 4 MiB."""
COMPUTE = "/shoal.batching.v1.Batching/Compute"
_LOST = (grpc.RpcError, asyncio.InvalidStateError)


def opener(channel: grpc.aio.Channel) -> Callable[..., Any]:
    """What opens a batching stream, a ``Call``, on ``channel``."""
    return channel.stream_stream(
        COMPUTE,
        request_serializer=batching_pb2.BatchChunk.SerializeToString,
        response_deserializer=batching_pb2.BatchResultChunk.FromString,
    )


class StreamOwner(Protocol):
    """Who is told of a stream's life. Each is called on the event loop."""

    def permitted(self, stream: BatchStream, batching: str) -> None:
        """The worker can take a batch; ``batching`` is the JSON of the model's settings."""

    def executed(self, stream: BatchStream) -> None:
        """The first answers are here; called before they are told."""

    def set_aside(self, stream: BatchStream) -> None:
        """The worker waits for what the batch needs, and takes others meanwhile."""

    def answered(self, request: Request, result: batching_pb2.BatchItemResult) -> None:
        """The worker answered one request."""

    def retiring(self, stream: BatchStream) -> None:
        """The stream carries no further batch, and ends once its stragglers are answered."""

    def ended(self, stream: BatchStream, code: Code, message: str, unanswered: Sequence[Request]) -> None:
        """The stream is over; called exactly once."""


class BatchStream:
    """Carries one batch at a time, any number in turn. What is sent between two turns of the loop is one message."""

    def __init__(self, call: Call, owner: StreamOwner, clock: asyncio.AbstractEventLoop) -> None:
        self.served = False
        """Whether a worker ever granted it a permit."""
        self.batch = SentBatch(0.0)
        """The one that it carries, or carried last."""
        self.state: StreamState = "parked"
        self._call = call
        self._owner = owner
        self._clock = clock
        self._retire_at = monotonic() + random.uniform(*RETIRE_SECONDS)  # noqa: S311 - not a secret
        self._unanswered: dict[int, Request] = {}
        self._outbox = [batching_pb2.BatchChunk()]
        self._outbox_bytes = 0
        self._sent = 0
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
        self.batch.size += len(requests)
        for request in requests:
            request.sent, request.batch = now, self.batch
            queued_us, timeout_us = request.sent_as
            self._chunk_for(len(request.message)).items.add(
                index=self._sent,
                request=request.message,
                owner=request.key_id,
                identity=request.caller.identity,
                timeout_us=timeout_us,
                queued_us=queued_us,
                traceparent=request.traceparent,
            )
            self._unanswered[self._sent] = request
            self._sent += 1
        self._wake.set()

    def _chunk_for(self, size: int) -> batching_pb2.BatchChunk:
        """Where the next item goes."""
        if self._outbox_bytes + size > MAX_CHUNK_BYTES:
            self._outbox.append(batching_pb2.BatchChunk())
            self._outbox_bytes = 0
        self._outbox_bytes += size
        return self._outbox[-1]

    def close(self) -> None:
        """Closes the batch; what was sent goes out first."""
        self._outbox[-1].last = True
        self._wake.set()

    def abandon(self) -> None:
        """Ends the stream from this side."""
        self._task.cancel()

    async def _run(self) -> None:
        code, message = Code.CANCELLED, "the batcher stopped"
        writer: asyncio.Task[None] | None = None
        try:
            metadata = await self._call.initial_metadata()
            if not self._call.done():
                writer = self._clock.create_task(self._write())
                self.served = True
                self._permitted(str(dict(metadata).get("x-shoal-batching", "")))
                await self._read()
            code, message = await _status(self._call)
        except _LOST:
            code, message = await _status(self._call)
        finally:
            if writer is not None:
                writer.cancel()
            self._call.cancel()
            self._owner.ended(self, code, message, list(self._unanswered.values()))

    async def _read(self) -> None:
        while isinstance(chunk := await self._call.read(), batching_pb2.BatchResultChunk):
            if self.state == "in use" and not chunk.results:
                self.state = "parked"
                self._owner.set_aside(self)
            elif self.state == "in use" and chunk.results[-1].index >= self._first:
                self.state = "parked"
                self._owner.executed(self)
            for result in chunk.results:
                if request := self._unanswered.pop(result.index, None):
                    self._owner.answered(request, result)
            if chunk.permit:
                self._permitted("")

    def _permitted(self, batching: str) -> None:
        """Offers the permit, unless the stream is old: another may be placed better by now."""
        if self.served and not batching and monotonic() >= self._retire_at:
            self.state = "retiring"
            self._wake.set()
            self._owner.retiring(self)
            return
        self.state = "permitted"
        self._owner.permitted(self, batching)

    async def _write(self) -> None:
        with suppress(*_LOST):  # the reader learns why
            while self.state != "retiring":
                await self._wake.wait()
                self._wake.clear()
                chunks, self._outbox = self._outbox, [batching_pb2.BatchChunk()]
                self._outbox_bytes = 0
                for chunk in chunks:
                    if chunk.items or chunk.last:
                        await self._call.write(chunk)
            await self._call.done_writing()


async def _status(call: Call) -> tuple[Code, str]:
    return Code((await call.code()).value[0]), await call.details() or ""
