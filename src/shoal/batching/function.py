"""A user's function over a whole batch, as what serves a batching stream.

An item's failure is its own: a message that can't be read and a deadline that has passed never reach the function, an
exception in the place of a result fails that item, and a batch for which the function raises runs once more, item by
item, so that only the culprit fails.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from shoal.batching.instances import Instances
from shoal.batching.messages import bulk_part, decode, encode, most_urgent, priority_of
from shoal.batching.results import failure, groups
from shoal.batching.v1 import batching_pb2
from shoal.errors import Cancelled, Code, DeadlineExceeded, InvalidRequest, Overloaded, Unavailable
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from google.protobuf.message import Message

    from shoal.batching.instances import Outcome
    from shoal.batching.meter import BatchMeter
    from shoal.modelconfig.batching import BatchingSettings

log = logging.getLogger(__name__)

Request = TypeVar("Request", bound="Message | bytes")
Reply = TypeVar("Reply", bound="Message | bytes")

_NOBODYS_FAULT = (Unavailable, Overloaded, DeadlineExceeded, Cancelled)
"""What a function raises because of something that all its items need: running them one by one would be no better."""


@dataclass(frozen=True, slots=True)
class Call:
    """Who asked, and how much time there is."""

    owner: str
    """The ``x-client-id`` metadata; empty without one."""
    deadline: float
    """Seconds of ``time.monotonic``; infinite without one."""
    queued_seconds: float
    """Spent in the batcher."""
    traceparent: str
    """W3C trace context, if the caller sent one."""
    priority: Priority = Priority.INTERACTIVE
    """``bulk`` fills what interactive calls leave."""

    @property
    def seconds_left(self) -> float:
        """Seconds until the caller's deadline; 0 once it has passed, infinite without one."""
        return max(0.0, self.deadline - monotonic())


class Requests(list[Request]):
    """The requests of a batch, and for each who asked."""

    def __init__(self, requests: Iterable[Request], calls: Iterable[Call]) -> None:
        super().__init__(requests)
        self.calls = tuple(calls)


if TYPE_CHECKING:
    Answers = Iterable[Reply | Exception]
    BatchFunction = (
        Callable[[Requests[Request]], Answers[Reply]] | Callable[[Requests[Request]], Awaitable[Answers[Reply]]]
    )


class Function(Generic[Request, Reply]):
    """Serves the batches of one unary method; see ``shoal.batching.served_stream.Handler``."""

    def __init__(
        self,
        method: str,
        request: type[Request],
        reply: type[Reply],
        function: BatchFunction[Request, Reply],
        settings: BatchingSettings,
        meter: BatchMeter,
    ) -> None:
        self.method = method
        self.request = request
        self.reply = reply
        self.settings = settings
        self.meter = meter
        self.instances = Instances(function, settings.instance_count, method.rpartition("/")[2])

    def check(self, method: str) -> None:
        """Raises InvalidRequest if this isn't its method."""
        if method != self.method:
            raise InvalidRequest(f"{method} is not served here; there is {self.method}")

    def begin(
        self,
        method: str,  # noqa: ARG002 - a checked one
        priority: Priority = Priority.INTERACTIVE,  # noqa: ARG002 - its items have theirs
    ) -> FunctionBatch:
        """A batch of calls."""
        return FunctionBatch(self)


@dataclass(frozen=True, slots=True)
class _Item:
    index: int
    request: Any = field(repr=False)  # it may hold a key
    call: Call


class FunctionBatch:
    """Implements ``served_stream.Batch``: messages are read as they come, while the batch still fills."""

    def __init__(self, function: Function[Any, Any]) -> None:
        self.ready_at = 0.0
        self.executed = 0
        """Requests that the function got together."""
        self.put_off = 0
        """Always: each of them is one row."""
        self._function = function
        self._items: list[_Item] = []
        self._left: set[int] = set()
        self._results: list[batching_pb2.BatchItemResult] = []

    def add(self, *items: batching_pb2.BatchItem) -> None:
        """Reads the messages."""
        for item in items:
            self._add(item)

    def _add(self, item: batching_pb2.BatchItem) -> None:
        now, priority = monotonic(), priority_of(item)
        if len(self._items) == self._function.settings.max_batch_size:
            self._fail(item.index, priority, Unavailable("the batch is larger than the worker takes; try again"))
            return
        try:
            request = decode(self._function.request, item.request)
        except InvalidRequest as error:
            self._fail(item.index, priority, error)
            return
        deadline = now + item.timeout_us / 1e6 if item.timeout_us else float("inf")
        call = Call(item.owner, deadline, item.queued_us / 1e6, item.traceparent, priority)
        self._items.append(_Item(item.index, request, call))

    async def finish(self) -> AsyncIterator[Sequence[batching_pb2.BatchItemResult]]:
        """Runs what has time left."""
        self.ready_at = monotonic()
        await self._execute(self._items)
        if not self.executed:
            yield []  # a batch of failures teaches nothing about those that run
        for group in groups(self._results):
            yield group

    def withdraw(self, index: int) -> None:
        """The function doesn't see the item any more, unless it runs already."""
        self._left.add(index)

    def abandon(self) -> None:
        """Nothing is held: what runs is cancelled, or let go, where ``finish`` is."""

    async def _execute(self, items: Sequence[_Item]) -> None:
        live: list[_Item] = []

        def choose() -> Requests[Any]:
            live.extend(self._in_time(items))
            return Requests((item.request for item in live), (item.call for item in live))

        levels = [item.call.priority for item in items]
        priority = most_urgent(levels)
        if execution := await self._function.instances.run(choose, priority, bulk_part(levels)):
            self.executed = self.executed or len(live)
            self._function.meter.executed(len(live), execution.waited, execution.seconds, priority)
            await self._settle(live, execution.outcome)

    async def _settle(self, items: Sequence[_Item], outcome: Outcome) -> None:
        if isinstance(outcome, list) and len(outcome) != len(items):
            outcome = ValueError(f"the function gave {len(outcome)} results for {len(items)} requests")
        if isinstance(outcome, list):
            for item, result in zip(items, outcome, strict=True):
                self._answer(item, result)
        elif len(items) == 1 or isinstance(outcome, _NOBODYS_FAULT):
            for item in items:
                self._fail(item.index, item.call.priority, outcome)
        else:
            method = self._function.method
            log.warning("%s: a batch of %d failed; running it one by one: %r", method, len(items), outcome)
            for item in items:
                await self._execute([item])

    def _in_time(self, items: Sequence[_Item]) -> list[_Item]:
        """Those that somebody still waits for; the others fail."""
        now = monotonic()
        live = []
        for item in items:
            if item.index in self._left:
                self._fail(item.index, item.call.priority, Cancelled("the caller left before the batch was run"))
            elif item.call.deadline <= now:
                self._fail(item.index, item.call.priority, _too_late())
            else:
                live.append(item)
        return live

    def _answer(self, item: _Item, result: object) -> None:
        priority = item.call.priority
        if isinstance(result, BaseException):
            self._fail(item.index, priority, result)
            return
        try:
            response = encode(self._function.reply, result)
        except Exception as error:
            self._fail(item.index, priority, error)
            return
        self._results.append(batching_pb2.BatchItemResult(index=item.index, response=response))
        self._function.meter.answered(Code.OK, priority)

    def _fail(self, index: int, priority: Priority, error: BaseException) -> None:
        result = failure(index, error, self._function.method)
        self._results.append(result)
        self._function.meter.answered(Code(result.code), priority)


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the batch was run")
