"""The worker's side of one batching stream: permit, items as they arrive, results, and the next permit."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from shoal.batching import wire
from shoal.batching.permits import DRAINING
from shoal.batching.results import groups as groups_of
from shoal.batching.v1 import batching_pb2
from shoal.errors import Unavailable
from shoal.runtime import rpc
from shoal.runtime.doorbell import Doorbell
from shoal.runtime.priority import Priority
from shoal.runtime.share import share

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    import grpc

    from shoal.batching.permits import Permit, PermitGate
    from shoal.modelconfig.batching import BatchingSettings
    from shoal.runtime.timeouts import Timeouts

    Context = grpc.aio.ServicerContext[batching_pb2.BatchChunk, batching_pb2.BatchResultChunk]
    Results = Sequence[batching_pb2.BatchItemResult]

OPEN_SECONDS = 10.0
"""Beyond its delay or objective a batch is open for so long at most: a batcher that leaves it open hangs."""
WRITE_SECONDS = 10.0
"""A batcher that doesn't read its results for so long hangs, too. Its stream ends, and its permit comes back."""
_MAX_CHUNKS = 4
"""Read ahead of the batch that they belong to."""
_MAX_EARLY = 4096
"""Withdrawals remembered of items that haven't come yet."""


class Batch(Protocol):
    """One batch on its way through a worker."""

    def add(self, *items: batching_pb2.BatchItem) -> None:
        """Takes the items of a message and starts on them at once; the batch isn't closed yet. Never raises."""

    def finish(self) -> AsyncIterator[Results]:
        """The batch is closed: yields each item's result once, in any order and grouping.

        After the first group the batch no longer counts against the permits; later ones are for stragglers. Where
        nothing was executed by then the first group is empty.
        """
        ...

    def abandon(self) -> None:
        """The batch is over or its batcher is gone: stops what is left of it. Called once; never raises."""


# Whether a batch is one of the following ``hasattr`` says: ``isinstance`` takes Python 3.11 5 us.


class Withdrawable(Protocol):
    """A batch that can leave out an item; one that can't runs to its end."""

    def withdraw(self, index: int) -> None:
        """The caller of the item ``index`` has left: its work may end, and whatever answers it is dropped.

        The item still gets a result, say CANCELLED. May come at any time while the batch lives, also twice or when the
        item is answered. Never raises.
        """


class Prompt(Protocol):
    """A batch that may know answers before it is executed."""

    def tell_early(self, tell: Callable[[Results], None]) -> None:
        """Where a batcher takes them: from now on ``tell`` gets such results, and ``finish`` yields the others."""
        ...


class Timed(Protocol):
    """A batch that knows when it was ready for the engine or function."""

    @property
    def ready_at(self) -> float:
        """Seconds of ``time.monotonic``, to be read once the first group is there; 0: it never was."""
        ...


class Counted(Protocol):
    """A batch that knows how much was executed, which may be more or less than its items."""

    @property
    def executed(self) -> int:
        """Rows, of what the first group took; to be read once that is there; 0: unknown."""
        ...

    @property
    def put_off(self) -> int:
        """Rows that there was no room for then; to be read with ``executed``."""
        ...


class Handler(Protocol):
    """Serves the batches of one model."""

    @property
    def settings(self) -> BatchingSettings:
        """What the batcher is told."""
        ...

    def check(self, method: str) -> None:
        """Raises InvalidRequest if the model has no ``method``, such as ``/shoal.v1.Inference/Classify``."""
        ...

    def begin(self, method: str, priority: Priority = Priority.INTERACTIVE) -> Batch:
        """A batch of calls of ``method``; none of them is more urgent than ``priority``."""
        ...


class Carries(NamedTuple):
    """What the batches of a stream are."""

    method: str
    """The unary method that is batched."""
    priority: Priority = Priority.INTERACTIVE
    """No item is more urgent."""


class Hung(Unavailable):
    """The batcher made no progress; what its items did meanwhile is unknown."""


@dataclass(slots=True)
class _Carried:
    batch: Batch
    first: int
    """The index of its first item."""
    end: int
    """One more than that of its last, so far."""


class ServedStream:
    """One batch at a time, any number in turn; results of stragglers may come while the next batch is on its way."""

    def __init__(
        self,
        context: Context,
        handler: Handler,
        gate: PermitGate,
        carries: Carries,
        asker: str,
        worker: str,
        timeouts: Timeouts,
        processes: int = 1,
    ) -> None:
        """Prepares; nothing is granted yet.

        Args:
            context: The stream.
            handler: Serves its batches.
            gate: Grants its permits.
            carries: Says of what its batches are.
            asker: On whose behalf permits are granted; askers of a priority take turns.
            worker: What this process calls itself.
            timeouts: Of all streams' writes.
            processes: That share the model's instances, this one among them. A batcher is told the part of this one, or
                it would take a process for idle that has a batch already.
        """
        self.taken = 0
        """Items from this index on were never begun."""
        self._context = context
        self._handler = handler
        self._gate = gate
        self._carries = carries
        self._asker = asker
        self._worker = worker
        self._processes = processes
        self._writing = asyncio.Lock()
        self._timeouts = timeouts
        self._inbox: deque[batching_pb2.BatchChunk] = deque()
        self._moved = Doorbell()
        """Something was put into the inbox or taken out, or one of the stream's tasks has ended."""
        self._carried: list[_Carried] = []
        self._takes_early = wire.EARLY in rpc.told(context).get(wire.TAKES, "").split(",")
        self._early: set[int] = set()
        self._stragglers: set[asyncio.Task[None]] = set()
        self._hung = asyncio.Event()

    async def serve(self) -> None:
        """Returns when the batcher has half-closed the stream and has all its answers.

        Raises:
            Hung: the batcher leaves a batch open, or doesn't read.
            Unavailable: the gate is closed, and what was in flight is answered.
        """
        permit = await self._gate.acquire(self._asker, self._carries.priority)
        tasks = [asyncio.create_task(wait) for wait in (self._read(), self._gate.closed.wait(), self._hung.wait())]
        for task in tasks:
            task.add_done_callback(self._ended)
        try:
            await self._greet()
            while (chunk := await self._first_chunk(tasks)) is not None:
                permit.use()
                if not await self._carry(chunk, permit, tasks[:1]):
                    permit = await self._gate.acquire(self._asker, self._carries.priority)
                    await self._write(batching_pb2.BatchResultChunk(permit=True))
            permit.release()  # stragglers hold up nobody, also at the end of a stream
            await self._wait_for_stragglers()
        except Hung:
            raise
        except Unavailable:
            await self._wait_for_stragglers()
            raise
        finally:
            permit.release()
            for task in (*tasks, *self._stragglers):
                task.cancel()

    async def _greet(self) -> None:
        settings = self._handler.settings
        part = replace(settings, instance_count=share(settings.instance_count, self._processes))
        told = (
            (wire.SETTINGS, wire.write_settings(part)),
            (wire.WORKER, self._worker),
            (wire.TAKES, wire.WITHDRAWN),
        )
        await self._context.send_initial_metadata(told)

    async def _read(self) -> None:
        """Sorts what comes, also while a batch is at work: withdrawals act at once, items wait for their turn."""
        while isinstance(chunk := await self._context.read(), batching_pb2.BatchChunk):
            if chunk.items or chunk.last:
                while len(self._inbox) >= _MAX_CHUNKS:
                    await self._moved.rings()
                self._inbox.append(chunk)
                self._moved.ring()
            for index in chunk.withdrawn:
                self._withdraw(index)

    def _withdraw(self, index: int) -> None:
        if index >= self.taken:
            if len(self._early) < _MAX_EARLY:
                self._early.add(index)
            return
        for carried in self._carried:
            if carried.first <= index < carried.end:
                _withdraw_from(carried.batch, index)

    async def _next_chunk(self, over: Sequence[asyncio.Task[object]]) -> batching_pb2.BatchChunk | None:
        """The next items; None where one of ``over`` is done before any come."""
        while not self._inbox:
            if any(task.done() for task in over):
                return None
            await self._moved.rings()
        chunk = self._inbox.popleft()
        self._moved.ring()
        return chunk

    def _ended(self, task: asyncio.Task[object]) -> None:
        """A stream that breaks tells its handler, too: the reader's own error is no news."""
        if not task.cancelled():
            task.exception()
        self._moved.ring()

    async def _first_chunk(self, tasks: Sequence[asyncio.Task[object]]) -> batching_pb2.BatchChunk | None:
        """The next batch's first items; None where the batcher is done with this stream."""
        chunk = await self._next_chunk(tasks)
        if chunk is None:
            if self._hung.is_set():
                raise Hung("the batcher doesn't read its results")
            if not tasks[0].done():
                raise Unavailable(DRAINING)
        return chunk

    async def _carry(
        self, chunk: batching_pb2.BatchChunk, permit: Permit, reading: Sequence[asyncio.Task[object]]
    ) -> bool:
        """One batch, up to its first results; whether the permit could be kept, which the same message says."""
        batch = self._handler.begin(*self._carries)
        if self._takes_early and hasattr(batch, "tell_early"):
            batch.tell_early(self._tell_early)
        carried = _Carried(batch, self.taken, self.taken)
        self._carried.append(carried)
        groups = batch.finish()
        try:
            await self._receive(chunk, carried, reading)
            results = await anext(groups, ())
        except BaseException:
            self._carried.remove(carried)
            batch.abandon()
            raise
        self._beside(self._answer_stragglers(carried, groups))
        renewed = permit.renew()
        told = batching_pb2.BatchResultChunk(results=results, permit=renewed, engine_us=_engine_microseconds(batch))
        if hasattr(batch, "executed"):
            counted = cast("Counted", batch)
            told.executed, told.put_off = counted.executed, counted.put_off
        await self._write(told)
        return renewed

    async def _receive(
        self, chunk: batching_pb2.BatchChunk, carried: _Carried, reading: Sequence[asyncio.Task[object]]
    ) -> None:
        """Takes the items of one batch, as they come, until it is closed or the batcher has left."""
        self._take(chunk, carried)
        if chunk.last:  # as nearly always: no timer for that
            return
        limit = OPEN_SECONDS + self._handler.settings.open_seconds
        try:
            async with asyncio.timeout(limit):
                while not chunk.last:
                    following = await self._next_chunk(reading)
                    if following is None:
                        return
                    chunk = following
                    self._take(chunk, carried)
        except TimeoutError:
            raise Hung(f"the batcher left a batch open for {limit:g} s") from None

    def _take(self, chunk: batching_pb2.BatchChunk, carried: _Carried) -> None:
        if not (items := chunk.items):
            return
        carried.batch.add(*items)
        self.taken = carried.end = items[-1].index + 1
        for index in self._early.intersection(item.index for item in items) if self._early else ():
            self._early.discard(index)
            _withdraw_from(carried.batch, index)

    def _tell_early(self, results: Results) -> None:
        self._beside(self._write_early(results))

    async def _write_early(self, results: Results) -> None:
        try:
            for group in groups_of(results):
                await self._write(batching_pb2.BatchResultChunk(results=group, early=True))
        except Hung:
            self._hung.set()

    def _beside(self, answering: Coroutine[Any, Any, None]) -> None:
        """Answers while the stream goes on; it ends no sooner."""
        task = asyncio.ensure_future(answering)
        self._stragglers.add(task)
        task.add_done_callback(self._stragglers.discard)

    async def _answer_stragglers(self, carried: _Carried, groups: AsyncIterator[Results]) -> None:
        try:
            async for results in groups:
                await self._write(batching_pb2.BatchResultChunk(results=results))
        except Hung:
            self._hung.set()
        finally:
            self._carried.remove(carried)
            carried.batch.abandon()

    async def _wait_for_stragglers(self) -> None:
        if self._stragglers:
            await asyncio.wait(self._stragglers)

    async def _write(self, chunk: batching_pb2.BatchResultChunk) -> None:
        try:
            with self._timeouts.within(WRITE_SECONDS):
                async with self._writing:
                    await self._context.write(chunk)
        except TimeoutError:
            raise Hung(f"the batcher didn't read its results for {WRITE_SECONDS:g} s") from None


def _withdraw_from(batch: Batch, index: int) -> None:
    if hasattr(batch, "withdraw"):
        batch.withdraw(index)


def _engine_microseconds(batch: Batch) -> int:
    """Since the batch was ready for the engine, at least 1; 0 where that is unknown."""
    ready_at = batch.ready_at if hasattr(batch, "ready_at") else 0.0
    return max(1, int(1e6 * (monotonic() - ready_at))) if ready_at else 0
