"""One batching stream, from its parking to its end: the only place of the batcher that talks to workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, Protocol

import grpc

from shoal.batching.v1 import batching_pb2
from shoal.errors import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.batcher.request import Request

    Call = grpc.aio.StreamStreamCall[batching_pb2.BatchChunk, batching_pb2.BatchResultChunk]

StreamState = Literal["parked", "permitted", "in use"]
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

    def answered(self, request: Request, result: batching_pb2.BatchItemResult) -> None:
        """The worker answered one request."""

    def ended(self, stream: BatchStream, code: Code, message: str, unanswered: Sequence[Request]) -> None:
        """The stream is over; called exactly once."""


class BatchStream:
    """Carries one batch. Requests sent between two turns of the event loop travel in one message."""

    def __init__(self, call: Call, owner: StreamOwner, clock: asyncio.AbstractEventLoop) -> None:
        self.holds_permit = False
        self._call = call
        self._owner = owner
        self._clock = clock
        self._unanswered: dict[int, Request] = {}
        self._outbox = batching_pb2.BatchChunk()
        self._sent = 0
        self._closed = False
        self._wake = asyncio.Event()
        call.add_done_callback(lambda _: self._wake.set())
        self._task = clock.create_task(self._run())

    @property
    def state(self) -> StreamState:
        """What it is doing."""
        if not self.holds_permit:
            return "parked"
        return "in use" if self._sent else "permitted"

    @property
    def in_flight(self) -> int:
        """Requests sent and not answered."""
        return len(self._unanswered)

    def send(self, requests: Sequence[Request]) -> None:
        """Adds requests to the batch."""
        now = self._clock.time()
        for request in requests:
            self._outbox.items.add(
                index=self._sent,
                request=request.message,
                owner=request.owner,
                timeout_us=max(1, int((request.deadline - now) * 1e6)),
                queued_us=int((now - request.arrived) * 1e6),
                traceparent=request.traceparent,
            )
            self._unanswered[self._sent] = request
            self._sent += 1
        self._wake.set()

    def close(self) -> None:
        """Closes the batch; what was sent goes out first."""
        self._closed = True
        self._wake.set()

    def abandon(self) -> None:
        """Ends the stream from this side."""
        self._task.cancel()

    async def _run(self) -> None:
        code, message = Code.CANCELLED, "the batcher stopped"
        try:
            await self._carry()
            code, message = Code(await _status(self._call)), await self._call.details() or ""
        except _LOST:
            code, message = Code(await _status(self._call)), await self._call.details() or ""
        finally:
            self._call.cancel()
            self._owner.ended(self, code, message, list(self._unanswered.values()))

    async def _carry(self) -> None:
        metadata = await self._call.initial_metadata()
        if self._call.done():
            return
        self.holds_permit = True
        self._owner.permitted(self, str(dict(metadata).get("x-shoal-batching", "")))
        await self._write()
        executed = False
        while isinstance(chunk := await self._call.read(), batching_pb2.BatchResultChunk):
            if not executed:
                self._owner.executed(self)
                executed = True
            for result in chunk.results:
                if request := self._unanswered.pop(result.index, None):
                    self._owner.answered(request, result)

    async def _write(self) -> None:
        while not self._call.done():
            await self._wake.wait()
            self._wake.clear()
            closed = self._closed
            if self._outbox.items:
                chunk, self._outbox = self._outbox, batching_pb2.BatchChunk()
                await self._call.write(chunk)
            if closed:
                await self._call.done_writing()
                return


async def _status(call: Call) -> int:
    value: int = (await call.code()).value[0]
    return value
