"""One stream of calls (stream.proto), from its opening to its end."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, Protocol

import grpc
import grpc.aio

from shoal.batching import wire
from shoal.batching.v1 import stream_pb2
from shoal.client.stream_end import End, end_of
from shoal.errors import Code
from shoal.runtime.logs import Seldom

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shoal.client.calls import Call
    from shoal.client.stream_end import StreamCall
    from shoal.client.stream_limits import StreamLimits

log = Seldom(logging.getLogger(__name__))

StreamState = Literal["opening", "open", "ending", "ended"]
_LOST = (grpc.RpcError, asyncio.InvalidStateError, grpc.aio.UsageError)


class StreamListener(Protocol):
    """Who is told of a stream's life. Each is called on the event loop."""

    def opened(self, stream: CallStream) -> None:
        """The service takes calls on it."""

    def freed(self) -> None:
        """There is room for more calls."""

    def aged(self, stream: CallStream) -> None:
        """It is time for another one in its place."""

    def ending(self, stream: CallStream, unsent: Iterable[Call]) -> None:
        """It takes no more calls. ``unsent`` were never written; those in flight are still answered."""

    def ended(self, stream: CallStream, end: End) -> None:
        """It is over, and what is in flight is lost; called exactly once."""


class CallStream:
    """Carries calls, and answers each once. What is handed to it while a message is written makes the next one."""

    def __init__(
        self,
        start: Callable[[], StreamCall],
        listener: StreamListener,
        limits: StreamLimits,
        clock: Callable[[], float],
    ) -> None:
        """Opens it with ``start``, in a task of its own; ``clock`` is that of the calls' deadlines."""
        self.state: StreamState = "opening"
        self.useful = False
        """Whether it ever brought a result."""
        self._start = start
        self._listener = listener
        self._limits = limits
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._in_flight: dict[int, Call] = {}
        self._outbox: deque[Call] = deque()
        self._withdrawn: list[int] = []
        self._next = 0
        self._written = 0
        self._wake = asyncio.Event()
        self._used = self._loop.time()
        self._replace_at = self._used + random.uniform(*limits.replace_seconds)
        self._timer: asyncio.TimerHandle | None = None
        self.task = self._loop.create_task(self._run())
        """Ends with the stream."""

    @property
    def room(self) -> int:
        """Calls that may be added now."""
        return self._limits.calls - len(self._in_flight) if self.state == "open" else 0

    @property
    def in_flight(self) -> list[Call]:
        """What it carries and has not answered."""
        return list(self._in_flight.values())

    def send(self, calls: Iterable[Call]) -> None:
        """Adds calls, for which there must be ``room``."""
        for call in calls:
            call.left, call.index = self._left, self._next
            self._in_flight[self._next] = call
            self._outbox.append(call)
            self._next += 1
        self._used = self._loop.time()
        self._wake.set()

    def retire(self) -> None:
        """Half-closes it: what is in flight is answered, then it ends."""
        if self.state == "opening":
            self.abandon()
        elif self.state == "open":
            self._end_sending(())

    def abandon(self) -> None:
        """Ends it at once."""
        self.task.cancel()

    def _left(self, call: Call) -> None:
        """Nobody waits for ``call`` any more. If it was answered, nothing happens."""
        if self._in_flight.pop(call.index, None) is None:
            return
        if self.state == "ending" and not self._in_flight:
            self.abandon()  # nobody waits for what it still brings
        elif self.state == "open":
            if call.index < self._written:
                self._withdrawn.append(call.index)
                self._wake.set()
            self._listener.freed()

    async def _run(self) -> None:
        end = End(Code.CANCELLED, "the client was closed")
        call: StreamCall | None = None
        writer: asyncio.Task[None] | None = None
        try:
            call = self._start()
            await self._answered(call)
            if not call.done():
                writer = self._loop.create_task(self._write(call))
                self._set_timer()
                await self._read(call)
            end = await end_of(call)
        except TimeoutError:
            end = End(Code.UNAVAILABLE, "the service didn't answer a stream of calls", silent=True)
        except _LOST:
            if call is not None:  # else the channel is closed
                end = await end_of(call)
        except Exception as error:
            end = End(Code.INTERNAL, f"the client failed: {type(error).__name__}")
            log.say(type(error).__name__, "a stream of calls ended by a fault of the client's", error=error)
        finally:
            self.state = "ended"
            for waiting in (writer, call, self._timer):
                if waiting is not None:
                    waiting.cancel()
            self._listener.ended(self, end)

    async def _answered(self, call: StreamCall) -> None:
        """Waits for the service's first sign; nothing is sent before, since an older service would keep it for ever.

        Raises:
            TimeoutError: there is none.
        """
        async with asyncio.timeout(self._limits.silence_seconds):
            await call.initial_metadata()
        if not call.done():
            self.state = "open"
            self._listener.opened(self)

    async def _read(self, call: StreamCall) -> None:
        in_flight = self._in_flight
        while isinstance(chunk := await call.read(), stream_pb2.CallResultChunk):
            self.useful = self.useful or bool(chunk.results)
            for result in chunk.results:
                # What is unknown, was answered before or was left is skipped; so is what can't be an answer yet.
                if result.index < self._written and (answered := in_flight.pop(result.index, None)) is not None:
                    answered.end(result)
            if chunk.draining and self.state == "open":
                unsent = [in_flight.pop(one.index) for one in self._outbox if one.index in in_flight]
                self._outbox.clear()
                self._end_sending(unsent)
            if self.state == "open":
                self._listener.freed()

    def _end_sending(self, unsent: Iterable[Call]) -> None:
        self.state = "ending"
        self._wake.set()
        self._listener.ending(self, unsent)

    async def _write(self, call: StreamCall) -> None:
        """One message at a time: HTTP/2's flow control holds this task up, and nothing is written meanwhile."""
        with suppress(*_LOST):  # the reader learns why
            while True:
                while (chunk := self._chunk()) is not None:
                    await call.write(chunk)
                if self.state != "open":
                    await call.done_writing()
                    return
                self._wake.clear()
                await self._wake.wait()

    def _chunk(self) -> stream_pb2.CallChunk | None:
        """The next message; None if there is nothing to say."""
        chunk = stream_pb2.CallChunk(withdrawn=self._withdrawn[: wire.STREAM_CALLS])
        del self._withdrawn[: wire.STREAM_CALLS]
        now, size = self._clock(), 0
        while self._outbox:
            call = self._outbox[0]
            if call.index in self._in_flight:
                size += len(call.message)
                if size > self._limits.chunk_bytes and len(chunk.calls):
                    break
                left_us = int((call.deadline - now) * 1e6)
                chunk.calls.add(
                    index=call.index,
                    request=call.message,
                    timeout_us=max(left_us, 1),
                    traceparent=call.traceparent,
                    affinity=call.affinity,
                )
            self._outbox.popleft()
            self._written = call.index + 1
        return chunk if len(chunk.calls) or len(chunk.withdrawn) else None

    def _set_timer(self) -> None:
        now = self._loop.time()
        due = self._used + self._limits.idle_seconds
        if self.state == "open":
            due = min(due, max(self._replace_at, now + self._limits.again_seconds))
        self._timer = self._loop.call_later(max(due - now, 0.0), self._look)

    def _look(self) -> None:
        """Ends the stream where nothing needs it; has it replaced where it is old."""
        now = self._loop.time()
        if self._in_flight:
            self._used = now
            if self.state == "open" and now >= self._replace_at:
                self._listener.aged(self)
        elif self.state == "ending":
            self.abandon()  # the service had time enough to end it
        elif now >= min(self._replace_at, self._used + self._limits.idle_seconds):
            self.retire()
        self._set_timer()
