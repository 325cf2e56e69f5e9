"""Many unary calls of one method and model on one stream (stream.proto), whichever door it comes through.

A reader takes calls and a writer sends results; neither waits for the other. What is bounded: calls that were read and
whose results haven't left, so that a caller who doesn't read isn't read either; and the bytes of those results.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from shoal.batcher.affinities import affinity_of
from shoal.batcher.callers import traceparent_of
from shoal.batcher.door import GoneError
from shoal.batcher.limits import Limits, too_large
from shoal.batcher.request import Request
from shoal.batching import wire
from shoal.batching.v1 import stream_pb2
from shoal.errors import Code, InvalidRequest, Overloaded, ShoalError, Unavailable, to_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shoal.batcher.callers import Caller
    from shoal.batcher.dispatch import Dispatcher
    from shoal.batcher.door import Door
    from shoal.batcher.model_queue import ModelQueue

STREAM_BYTES: Final = 256 * 2**10
"""What an open stream counts for, of what an owner may hold: the buffers on its way."""
UNREAD_BYTES: Final = 2**20
"""Results that wait to be written, up to here, are part of that; more are counted as well."""
_DRAINING: Final = "the batcher is draining; send the call on another stream"


class CallStream:
    """One stream. Its calls stand in the queue as unary calls do, and are batched with those."""

    def __init__(self, dispatcher: Dispatcher, called: tuple[str, str], caller: Caller, limits: Limits) -> None:
        """Prepares.

        Args:
            dispatcher: Where the calls go.
            called: The unary method and the model.
            caller: Who asks.
            limits: What holds for each call.
        """
        self._dispatcher = dispatcher
        self._called = called
        self._caller = caller
        self._limits = limits
        self._waiting: dict[int, tuple[Request, ModelQueue]] = {}
        """Read and not answered, by their index."""
        self._results: list[tuple[int, bytes, ShoalError | None]] = []
        """Answered and not written."""
        self._unread_bytes = 0
        self._held_for_results = 0
        self._last_index = -1
        self._half_closed = False
        self._failure: Exception | None = None
        self._draining = False
        self._told_of_draining = False
        self._wake = asyncio.Event()
        self._room = asyncio.Event()

    async def serve(self, door: Door) -> None:
        """Returns when the caller has half-closed and has all its results.

        Raises:
            GoneError: the caller has left; its calls are withdrawn.
            ShoalError: the stream as a whole has failed, or the batcher is draining.
        """
        held = self._dispatcher.held
        held.take(self._caller.owner, STREAM_BYTES, 0)
        counted = not self._caller.by_pipeline  # the call that it is for is counted
        self._dispatcher.in_flight += counted
        reading = asyncio.ensure_future(self._read(door))
        try:
            await self._write(door)
        finally:
            self._dispatcher.in_flight -= counted
            self.fail(GoneError())
            held.give_back(self._caller.owner, STREAM_BYTES, 0)
            if door.cancels_reads:
                reading.cancel()

    def drain(self) -> None:
        """No further calls are taken; the stream ends when those in flight have their results.

        One of a pipeline goes on: calls in flight here wait for its calls. It ends with the process, and what it has by
        then is sent elsewhere.
        """
        if not self._caller.by_pipeline:
            self._draining = True
            self._wake.set()

    def fail(self, error: Exception) -> None:
        """Ends the stream with ``error``, as soon as what is being written is.

        Its calls are withdrawn at once, and results that nobody read are dropped: a caller who doesn't read can hold up
        the end, and nothing else. A reader that waits for room goes on.
        """
        if self._failure is None:
            self._failure = error
            self._results.clear()
            self._unread_bytes = 0
            self._withdraw(list(self._waiting))
            self._dispatcher.held.give_back(self._caller.owner, self._held_for_results, 0)
            self._held_for_results = 0
            self._wake.set()

    async def _read(self, door: Door) -> None:
        try:
            while (message := await door.read()) is not None:
                if self._failure is None:
                    self._take(message)
                while self._is_full:
                    self._room.clear()
                    await self._room.wait()
            self._half_closed = True
        except Exception as error:
            self.fail(error)
        finally:
            self._wake.set()

    @property
    def _is_full(self) -> bool:
        return len(self._waiting) + len(self._results) >= wire.STREAM_CALLS

    async def _write(self, door: Door) -> None:
        """Sends results as they come, those of one turn of the loop together."""
        while True:
            if self._failure is not None:
                raise self._failure
            if self._draining and not self._told_of_draining:
                self._told_of_draining = True
                await door.write(stream_pb2.CallResultChunk(draining=True).SerializeToString())
            elif self._results:
                await door.write(self._next_chunk())
                self._room.set()
            elif not self._waiting and self._half_closed:
                return
            elif not self._waiting and self._draining:
                raise Unavailable(_DRAINING)
            else:
                self._wake.clear()
                await self._wake.wait()

    def _next_chunk(self) -> bytes:
        chunk = stream_pb2.CallResultChunk()
        size = taken = 0
        for place, response, error in self._results:
            if taken and size + len(response) > wire.RESULTS_BYTES:
                break
            taken += 1
            size += len(response)
            if error is None:
                chunk.results.add(index=place, response=response)
            else:
                chunk.results.append(_failed(place, error))
        del self._results[:taken]
        self._unread_bytes -= size
        self._count_unread()
        return chunk.SerializeToString()

    def _take(self, message: bytes) -> None:
        """Puts the calls of one message into the queue."""
        try:
            chunk = stream_pb2.CallChunk.FromString(message)
        except DecodeError:
            raise InvalidRequest("the message is not a shoal.batching.v1.CallChunk") from None
        for what, entries in (("calls", chunk.calls), ("withdrawn", chunk.withdrawn)):
            if len(entries) > wire.STREAM_CALLS:
                raise InvalidRequest(f"{what}: a message has {len(entries)}, expected at most {wire.STREAM_CALLS}")
        now = monotonic()
        requests = self._requests(now, chunk.calls)
        if requests:
            self._enter(requests)
        if chunk.withdrawn:
            self._withdraw(chunk.withdrawn)

    def _requests(self, now: float, calls: Sequence[stream_pb2.CallItem]) -> list[Request]:
        """Those of ``calls`` that may enter; the others are refused."""
        limits, caller = self._limits, self._caller
        requests: list[Request] = []
        last = self._last_index
        allowed = caller.allowed(now, len(calls))
        for call in calls:
            index = call.index
            if index <= last:
                raise InvalidRequest(f"call {index} comes after call {last}: indices must count up")
            last = index
            message = call.request
            if len(message) > limits.message_bytes:
                self._refuse(index, too_large(limits.message_bytes))
            elif self._draining:
                self._refuse(index, Unavailable(_DRAINING))
            elif len(requests) >= allowed:
                self._refuse(index, caller.rate_limited(now))
            else:
                requests.append(
                    Request(
                        owner=caller.owner,
                        arrived=now,
                        deadline=now + limits.seconds(call.timeout_us),
                        priority=caller.priority,
                        message=message,
                        reply=self._answer,
                        place=index,
                        traceparent=traceparent_of(call.traceparent) or limits.traceparent,
                        affinity=affinity_of(call.affinity),
                        caller=caller.id,
                        called=self._called,
                    )
                )
        self._last_index = last
        return requests

    def _enter(self, requests: Sequence[Request]) -> None:
        """Puts ``requests`` into the queue; where their owner has room for some of them, those."""
        try:
            queue = self._dispatcher.queue_of(*self._called, self._caller.owner)
        except ShoalError as error:
            for request in requests:
                self._refuse(request.place, error)
            return
        if held := self._held(requests):
            self._waiting.update((request.place, (request, queue)) for request in held)
            queue.enter(held)

    def _held(self, requests: Sequence[Request]) -> Sequence[Request]:
        """Those whose messages their owner may hold; the others are refused."""
        size = sum([len(request.message) for request in requests])
        try:
            self._dispatcher.held.take(self._caller.owner, size, len(requests))
        except Overloaded as error:
            if len(requests) > 1:
                return [request for one in requests for request in self._held((one,))]
            self._refuse(requests[0].place, error)
            return ()
        return requests

    def _refuse(self, index: int, error: ShoalError) -> None:
        self._results.append((index, b"", error))
        self._wake.set()

    def _answer(self, request: Request, response: bytes, error: ShoalError | None) -> None:
        """A call has its result."""
        del self._waiting[request.place]
        self._dispatcher.held.give_back(self._caller.owner, len(request.message))
        self._results.append((request.place, response, error))
        if response:
            self._unread_bytes += len(response)
            self._count_unread()
        self._wake.set()

    def _count_unread(self) -> None:
        """Counts what waits to be written where it is much; ends a stream that has too much of it."""
        held, owner = self._dispatcher.held, self._caller.owner
        wanted = max(0, self._unread_bytes - UNREAD_BYTES)
        try:
            if wanted > self._held_for_results:
                held.take(owner, wanted - self._held_for_results, 0)
            elif wanted < self._held_for_results:
                held.give_back(owner, self._held_for_results - wanted, 0)
            self._held_for_results = wanted
        except Overloaded:
            text = f"{self._unread_bytes >> 20} MiB of results wait to be read; read them sooner"
            self.fail(Overloaded(text))

    def _withdraw(self, indices: Iterable[int]) -> None:
        """Nobody waits for these."""
        left: dict[ModelQueue, list[Request]] = {}
        for index in indices:
            if found := self._waiting.pop(index, None):
                request, queue = found
                left.setdefault(queue, []).append(request)
                self._dispatcher.held.give_back(self._caller.owner, len(request.message))
        for queue, requests in left.items():
            queue.leave(requests)
        self._room.set()


def _failed(index: int, error: ShoalError) -> stream_pb2.CallItemResult:
    code, message = to_status(error)
    result = stream_pb2.CallItemResult(index=index, code=code, message=message)
    if code is Code.RESOURCE_EXHAUSTED and isinstance(error, Overloaded) and error.retry_after_seconds:
        result.retry_after_us = max(1, int(error.retry_after_seconds * 1e6))
    return result
