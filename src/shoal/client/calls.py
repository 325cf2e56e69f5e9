"""Attempts at calls that wait for their answers, and the one clock that ends those whose time is up."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count
from typing import TYPE_CHECKING, TypeAlias

from shoal.batching.v1 import stream_pb2
from shoal.errors import DeadlineExceeded, ShoalError

if TYPE_CHECKING:
    from collections.abc import Callable

Answer: TypeAlias = stream_pb2.CallItemResult | ShoalError | None
"""What came of an attempt: the service's result, a failure, or None: it has to go as a unary call."""

_LEAST_KEPT = 1024


class Call:
    """One attempt at a call."""

    __slots__ = ("affinity", "answer", "deadline", "index", "left", "message", "traceparent")

    def __init__(
        self, message: bytes, deadline: float, answer: asyncio.Future[Answer], traceparent: str = "", affinity: str = ""
    ) -> None:
        self.message = message
        """The request, serialized."""
        self.deadline = deadline
        """On the client's clock."""
        self.answer = answer
        """Done, too, once nobody waits for it any more."""
        self.left: Callable[[Call], None] | None = None
        """Of what carries it, if something does: to be told once nobody waits any more, answered or not."""
        self.traceparent = traceparent
        """The span that it is made in; empty: none."""
        self.affinity = affinity
        """Calls with the same text do best at the same worker."""
        self.index = -1
        """Its place on the stream that carries it."""

    def end(self, answer: Answer) -> None:
        """Answers it, unless it has ended."""
        if not self.answer.done():
            self.answer.set_result(answer)


class Deadlines:
    """Ends calls with DeadlineExceeded, whatever carries them; one heap and one timer for all of a client's.

    Answered calls stay in the heap until their time has come or they are more than half of it, so that a call costs a
    push and no search.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._heap: list[tuple[float, int, Call]] = []
        self._order = count()
        self._most = _LEAST_KEPT
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at = 0.0

    def add(self, call: Call) -> None:
        """Watches over ``call`` until it has ended."""
        heapq.heappush(self._heap, (call.deadline, next(self._order), call))
        if len(self._heap) > self._most:
            self._heap = [entry for entry in self._heap if not entry[2].answer.done()]
            heapq.heapify(self._heap)
            self._most = max(2 * len(self._heap), _LEAST_KEPT)
        if self._timer is None or call.deadline < self._wakes_at:
            self._set_timer()

    def close(self) -> None:
        """Watches over nothing any more."""
        self._heap.clear()
        self._set_timer()

    def __len__(self) -> int:
        """Calls that are kept, answered ones among them."""
        return len(self._heap)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            self._wakes_at = self._heap[0][0]
            self._timer = self._loop.call_later(self._wakes_at - self._clock(), self._look)

    def _look(self) -> None:
        now = self._clock()
        while self._heap and (self._heap[0][0] <= now or self._heap[0][2].answer.done()):
            _, _, call = heapq.heappop(self._heap)
            call.end(DeadlineExceeded("the deadline passed before an answer came"))
        self._timer = None
        self._set_timer()
