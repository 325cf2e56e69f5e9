"""A pipeline as the batching protocol sees it: a model whose batches are answered picture by picture."""

from __future__ import annotations

import asyncio
import functools
import math
from typing import TYPE_CHECKING, Final, NamedTuple

from shoal.batching.messages import encode, priority_of
from shoal.batching.results import failure, groups
from shoal.batching.v1 import batching_pb2
from shoal.errors import Cancelled, Code, InvalidRequest
from shoal.modelconfig.batching import BatchingSettings
from shoal.pipeline.analysis import Analysis
from shoal.pipeline.room import Rooms
from shoal.runtime.doorbell import Doorbell
from shoal.runtime.priority import Priority
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from shoal.pipeline.admission import Admission
    from shoal.pipeline.analysis import Asked, Running

BATCH: Final = 4
"""Pictures that a batcher may send in one message; it never waits for company. So many may wait
here for room with each permit."""
PERMITS: Final = 2
"""Messages that are taken at once."""


class PipelineHandler:
    """Implements ``shoal.batching.served_stream.Handler``."""

    settings = BatchingSettings(max_batch_size=BATCH, instance_count=PERMITS)

    def __init__(self, running: Running, admission: Admission, max_pictures: int, processes: int = 1) -> None:
        """Prepares; ``max_pictures`` at once at most, see ``Rooms``; ``processes``: that run the pipeline."""
        self._running = running
        self._admission = admission
        self._rooms = Rooms(max_pictures, processes)

    def check(self, method: str) -> None:
        """Raises InvalidRequest; see ``Admission.check``."""
        self._admission.check(method)

    def begin(
        self,
        method: str,  # noqa: ARG002 - a checked one: there is one
        priority: Priority = Priority.INTERACTIVE,  # noqa: ARG002 - its items have theirs
    ) -> PipelineBatch:
        """A batch of calls."""
        return PipelineBatch(self._running, self._admission, self._rooms)


class PipelineBatch:
    """Implements ``served_stream.Batch``: what came in one message, each picture on its own way from then on."""

    def __init__(self, running: Running, admission: Admission, rooms: Rooms) -> None:
        self._running = running
        self._admission = admission
        self._rooms = rooms
        self._tasks: dict[int, asyncio.Task[_Answer]] = {}
        self._waiting: set[int] = set()
        """Those for which there is no room yet."""
        self._results: list[batching_pb2.BatchItemResult] = []
        self._tell: Callable[[Sequence[batching_pb2.BatchItemResult]], None] | None = None
        self._news = Doorbell()
        self.ready_at = running.clock()
        """Of ``served_stream.Timed``: so the batcher learns how long those wait that come next."""

    def tell_early(self, tell: Callable[[Sequence[batching_pb2.BatchItemResult]], None]) -> None:
        """Of ``served_stream.Prompt``: what is answered while others wait for room."""
        self._tell = tell

    def add(self, *items: batching_pb2.BatchItem) -> None:
        """Begins with each as soon as there is room."""
        now, loop = self._running.clock(), asyncio.get_running_loop()
        for item, asked in self._admission.admit(items, now):
            self._running.meter.in_flight.inc()
            self._waiting.add(item.index)
            work = _Work(item, now, asked)
            task = self._tasks[item.index] = loop.create_task(self._run(work))
            task.add_done_callback(functools.partial(self._answer, work))

    async def finish(self) -> AsyncIterator[Sequence[batching_pb2.BatchItemResult]]:
        """The first group comes when none of the batch waits any more, empty or not; results as they are ready."""
        while self._waiting:
            await self._news.rings()
        self._tell = None
        first, *others = list(groups(self._taken())) or [[]]
        yield first
        for group in others:
            yield group
        while self._tasks or self._results:
            if not self._results:
                await self._news.rings()
            for group in groups(self._taken()):
                yield group

    def withdraw(self, index: int) -> None:
        """Its calls of models are withdrawn, too."""
        if task := self._tasks.get(index):
            task.cancel()

    def abandon(self) -> None:
        """So are those of all."""
        for task in list(self._tasks.values()):
            task.cancel()

    async def _run(self, work: _Work) -> _Answer:
        """Waits for room, and finds out all that was asked."""
        if isinstance(work.asked, Exception):
            raise work.asked
        room = self._rooms.of(work.asked.caller.priority)
        pictures = await room.enter()
        self._goes_on(work.item.index)
        analysis, begun = Analysis(self._running, work.asked), self._running.clock()
        try:
            reply = await analysis.run()
            return _Answer(_encoded(reply), len(reply.findings))
        finally:
            if analysis.tells:
                room.spent(self._running.clock() - begun, pictures, work.budget_seconds)
            room.leave()

    def _goes_on(self, index: int) -> None:
        self._waiting.discard(index)
        self._news.ring()

    def _taken(self) -> list[batching_pb2.BatchItemResult]:
        results, self._results = self._results, []
        return results

    def _answer(self, work: _Work, task: asyncio.Task[_Answer]) -> None:
        """Also where the caller left before anything began."""
        item, meter, seconds = work.item, self._running.meter, self._running.clock() - work.come
        del self._tasks[item.index]
        error = Cancelled("the caller left") if task.cancelled() else task.exception()
        answer = _Answer(b"", 0) if error else task.result()
        result = (
            failure(item.index, error, self._running.name)
            if error
            else batching_pb2.BatchItemResult(index=item.index, response=answer.response)
        )
        if self._tell is not None:
            self._tell([result])
        else:
            self._results.append(result)
        meter.answered(Code(result.code), priority_of(item), seconds, answer.boxes)
        meter.in_flight.dec()
        self._goes_on(item.index)


class _Work(NamedTuple):
    """One picture."""

    item: batching_pb2.BatchItem
    come: float
    asked: Asked | Exception
    """The exception: it was not let in."""

    @property
    def budget_seconds(self) -> float:
        """What its caller gave it, the wait in the batcher included."""
        left = self.item.timeout_us
        return (left + self.item.queued_us) / 1e6 if left else math.inf


class _Answer(NamedTuple):
    response: bytes
    boxes: int


def _encoded(reply: pb.AnalyzeReply) -> bytes:
    try:
        return encode(pb.AnalyzeReply, reply)
    except ValueError as error:
        raise InvalidRequest(
            f"{error}: ask for masks as runs (mask_form), or let the pipeline keep fewer boxes"
        ) from None
