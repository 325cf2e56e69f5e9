"""Sends the calls of one method, model and priority: each alone, or many on a stream.

The rule: a call goes alone, as a unary call, where no stream is open and nothing else of its kind is in flight or asked
for in the same turn of the event loop. With a second one a stream is opened; once the service has answered it, calls go
over that, what is asked for in one turn in one message.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from shoal.batching import wire
from shoal.client import trace_context
from shoal.client.call_stream import CallStream
from shoal.client.calls import Call
from shoal.client.stream_end import error_of
from shoal.client.stream_limits import StreamLimits
from shoal.errors import Cancelled, Code, ShoalError
from shoal.runtime.logs import Seldom

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shoal.client.calls import Deadlines
    from shoal.client.channel import InferenceMethod, Metadata
    from shoal.client.stream_end import End

log = Seldom(logging.getLogger(__name__))

_NO_STREAMS = frozenset({Code.UNIMPLEMENTED, Code.INVALID_ARGUMENT})
"""How services without streams refuse one."""


class Sender:
    """Sends calls, whose answers come back in any order; what finds no room waits here, in order.

    Args:
        method: What is called.
        metadata: Of each call and of each stream, when it is made.
        deadlines: Ends calls that take too long.
        clock: That of ``deadlines``.
        streams: False: every call goes alone. True: none does, where the service has streams. None: the rule.
        limits: Of streams.
    """

    def __init__(
        self,
        method: InferenceMethod[Any],
        metadata: Callable[[], Metadata],
        deadlines: Deadlines,
        clock: Callable[[], float],
        *,
        streams: bool | None = None,
        limits: StreamLimits | None = None,
    ) -> None:
        self._method = method
        self._metadata = metadata
        self._deadlines = deadlines
        self._clock = clock
        self._limits = limits or StreamLimits()
        self._loop = asyncio.get_running_loop()
        self._pending: deque[Call] = deque()
        self._flushing = False
        self._alone = 0
        self._least = {None: 2, True: 1}.get(streams)
        """Calls at once that open a stream; None: none ever does."""
        self._alone_while_opening = 0 if streams else self._limits.alone_while_opening
        self._streams: list[CallStream] = []
        self._old: set[CallStream] = set()
        """Of these: the ones to be replaced."""
        self._ending: set[CallStream] = set()
        self._opening: CallStream | None = None
        self._was_silent = False
        self._try_at = self._clock()
        self._closed = False
        self.sent_alone = 0
        """Attempts that were unary calls, so far."""
        self.sent_by_stream = 0

    @property
    def busy(self) -> bool:
        """Whether it has calls or streams."""
        return bool(self._pending or self._alone or self._opening or self._streams or self._ending)

    async def __call__(
        self, message: bytes, left_seconds: float, affinity: str = "", *, traceparent: str | None = None
    ) -> bytes:
        """One attempt at a call: ``message`` is the serialized request, the answer the serialized reply.

        Args:
            message: The request.
            left_seconds: Until its deadline.
            affinity: Calls with the same text go to the same worker, where that costs no waiting.
            traceparent: The span that it is made in. None: the one that runs here.

        Raises:
            ShoalError: what the service answered, or that it could not be reached in time.
        """
        if traceparent is None:
            traceparent = trace_context.current()
        answer_soon = self._loop.create_future()
        call = Call(message, self._clock() + left_seconds, answer_soon, traceparent, affinity)
        self._pending.append(call)
        self._deadlines.add(call)
        self._flush_soon()
        try:
            answer = await call.answer
            if answer is None:
                traced: Metadata = ((trace_context.HEADER, traceparent),) if traceparent else ()
                wished: Metadata = ((wire.AFFINITY, affinity),) if affinity else ()
                return await self._method(message, call.deadline - self._clock(), (*self._metadata(), *traced, *wished))
        finally:
            if call.left is not None:
                call.left(call)
        if isinstance(answer, ShoalError):
            raise answer
        if answer.code:
            raise error_of(answer)
        return answer.response

    async def close(self, grace_seconds: float = 0.0) -> None:
        """Ends what waits with ``Cancelled``, and the streams: those in use after ``grace_seconds`` at the latest."""
        self._closed = True
        for call in self._pending:
            call.end(Cancelled("the client was closed"))
        streams = [*self._streams, *self._ending, *([self._opening] if self._opening else [])]
        for stream in streams:
            stream.retire()
        tasks = [stream.task for stream in streams]
        if tasks and grace_seconds > 0:
            await asyncio.wait(tasks, timeout=grace_seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def opened(self, stream: CallStream) -> None:
        """The service takes calls on ``stream``."""
        self._opening, self._was_silent = None, False
        self._streams.append(stream)
        for old in list(self._old):
            old.retire()
        self._flush_soon()

    def freed(self) -> None:
        """There is room on a stream."""
        if self._pending:
            self._flush_soon()

    def aged(self, stream: CallStream) -> None:
        """Another stream is wanted in the place of this one, which carries calls until that is open."""
        self._old.add(stream)
        if self._may_open():
            self._open()

    def ending(self, stream: CallStream, unsent: Iterable[Call]) -> None:
        """``stream`` takes no more calls, ``unsent`` neither."""
        self._streams.remove(stream)
        self._old.discard(stream)
        self._ending.add(stream)
        for call in reversed(list(unsent)):
            call.left = None
            self._pending.appendleft(call)
        if not stream.useful:  # one that ends so at once is no reason to try the next one at once
            self._try_at = self._clock() + self._limits.again_seconds
        self._flush_soon()

    def ended(self, stream: CallStream, end: End) -> None:
        """``stream`` is over; what it carried may be sent again."""
        if stream is self._opening:
            self._opening = None
            self._refused(end)
        elif stream in self._streams:
            self.ending(stream, ())
        self._old.discard(stream)
        self._ending.discard(stream)
        for call in stream.in_flight:
            call.end(Cancelled("the client was closed") if self._closed else end.error())
        self._flush_soon()

    def _refused(self, end: End) -> None:
        """No stream was opened: what waits goes alone, and learns why if it has to."""
        limits = self._limits
        again = limits.again_seconds
        if end.silent or end.code in _NO_STREAMS:
            again = limits.silent_again_seconds if end.silent else limits.refused_again_seconds
            name, why = self._method.name, end.message or end.code.name
            text = "%s: calls go one by one, and streams are tried again in %g s (the service may be older): %s"
            log.say(name, text, name, again, why)
        self._was_silent = end.silent
        self._try_at = self._clock() + again

    def _left_alone(self, _call: Call) -> None:
        """A unary call has ended."""
        self._alone -= 1
        if self._pending:
            self._flush_soon()

    def _flush_soon(self) -> None:
        """At the end of this turn, so that what is asked for in it travels together."""
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        for stream in self._streams:
            if self._pending and (room := stream.room):
                calls = self._take(room)
                self.sent_by_stream += len(calls)
                stream.send(calls)
        if not self._pending:
            return
        if self._may_open() and (self._streams or self._at_once() >= (self._least or 0)):
            self._open()
        if not self._streams:
            self._go_alone()

    def _take(self, most: int) -> list[Call]:
        """The next calls, without those that have ended meanwhile."""
        taken: list[Call] = []
        while self._pending and len(taken) < most:
            if not (call := self._pending.popleft()).answer.done():
                taken.append(call)
        return taken

    def _at_once(self) -> int:
        return self._alone + len(self._pending)

    def _may_open(self) -> bool:
        return (
            self._least is not None
            and self._opening is None
            and len(self._streams) - len(self._old) < self._limits.streams
            and self._clock() >= self._try_at
            and not self._closed
        )

    def _open(self) -> None:
        start = self._method.stream_starter(self._metadata())
        self._opening = CallStream(start, self, self._limits, self._clock)

    def _go_alone(self) -> None:
        """Sends all that waits as unary calls, or some of it while a stream is being opened that probably will be."""
        most = len(self._pending)
        if self._opening is not None and not self._was_silent:
            most = max(self._alone_while_opening - self._alone, 0)
        for call in self._take(most):
            call.left = self._left_alone
            self._alone += 1
            self.sent_alone += 1
            call.end(None)
