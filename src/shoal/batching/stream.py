"""The worker's side of one batching stream: permit, items as they arrive, results, and the next permit."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Literal, Protocol

from shoal.batching.permits import DRAINING
from shoal.batching.v1 import batching_pb2
from shoal.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import grpc

    from shoal.batching.permits import Permit, PermitGate
    from shoal.batching.settings import BatchingSettings

    Context = grpc.aio.ServicerContext[batching_pb2.BatchChunk, batching_pb2.BatchResultChunk]
    Results = Sequence[batching_pb2.BatchItemResult]


class Batch(Protocol):
    """One batch on its way through a worker."""

    def add(self, item: batching_pb2.BatchItem) -> None:
        """Takes an item and starts on it at once; the batch isn't closed yet. Never raises."""

    def finish(self) -> AsyncIterator[Results]:
        """The batch is closed: yields each item's result once, in any order and grouping.

        After the first group the batch no longer counts against the permits; later ones are for stragglers. Where all
        are stragglers the first group is empty.
        """
        ...

    def abandon(self) -> None:
        """The batch is over or its batcher is gone: stops what is left of it. Called once; never raises."""


class Handler(Protocol):
    """Serves the batches of one model."""

    @property
    def settings(self) -> BatchingSettings:
        """What the batcher is told."""
        ...

    def check(self, method: str) -> None:
        """Raises InvalidRequest if the model has no ``method``, such as ``/shoal.v1.Inference/Classify``."""
        ...

    def begin(self, method: str) -> Batch:
        """A batch of calls of ``method``."""
        ...


class ServedStream:
    """One batch at a time, any number in turn; results of stragglers may come while the next batch is on its way."""

    def __init__(self, context: Context, handler: Handler, gate: PermitGate, method: str, asker: str) -> None:
        """Prepares; nothing is granted yet.

        Args:
            context: The stream.
            handler: Serves its batches.
            gate: Grants its permits.
            method: The unary method that is batched.
            asker: On whose behalf permits are granted; askers take turns.
        """
        self._context = context
        self._handler = handler
        self._gate = gate
        self._method = method
        self._asker = asker
        self._writing = asyncio.Lock()
        self._stragglers: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Returns when the batcher has half-closed the stream and has all its answers.

        Raises:
            Unavailable: the gate is closed, and what was in flight is answered.
        """
        permit = await self._gate.acquire(self._asker)
        closing = asyncio.create_task(self._gate.closed.wait())
        try:
            settings = json.dumps(asdict(self._handler.settings))
            await self._context.send_initial_metadata((("x-shoal-batching", settings),))
            while (chunk := await self._first_chunk(closing)) is not None:
                permit.use()
                if not await self._carry(chunk, permit):
                    permit = await self._gate.acquire(self._asker)
                    await self._write(batching_pb2.BatchResultChunk(permit=True))
            permit.release()  # stragglers hold up nobody, also at the end of a stream
            await self._wait_for_stragglers()
        except Unavailable:
            await self._wait_for_stragglers()
            raise
        finally:
            permit.release()
            closing.cancel()
            for task in self._stragglers:
                task.cancel()

    async def _first_chunk(self, closing: asyncio.Task[Literal[True]]) -> batching_pb2.BatchChunk | None:
        """The next batch's first items; None where the batcher is done with this stream."""
        reading = asyncio.ensure_future(self._context.read())
        try:
            await asyncio.wait((reading, closing), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise Unavailable(DRAINING)
            chunk = reading.result()
            return chunk if isinstance(chunk, batching_pb2.BatchChunk) else None
        finally:
            reading.cancel()

    async def _carry(self, chunk: batching_pb2.BatchChunk, permit: Permit) -> bool:
        """One batch, up to its first results; whether the permit could be kept, which the same message says."""
        batch = self._handler.begin(self._method)
        groups = batch.finish()
        try:
            await self._receive(chunk, batch)
            results = await anext(groups, ())
        except BaseException:
            batch.abandon()
            raise
        task = asyncio.ensure_future(self._answer_stragglers(batch, groups))
        self._stragglers.add(task)
        task.add_done_callback(self._stragglers.discard)
        renewed = permit.renew()
        await self._write(batching_pb2.BatchResultChunk(results=results, permit=renewed))
        return renewed

    async def _receive(self, chunk: batching_pb2.BatchChunk, batch: Batch) -> None:
        while True:
            for item in chunk.items:
                batch.add(item)
            if chunk.last:
                return
            following = await self._context.read()
            if not isinstance(following, batching_pb2.BatchChunk):
                return
            chunk = following

    async def _answer_stragglers(self, batch: Batch, groups: AsyncIterator[Results]) -> None:
        try:
            async for results in groups:
                await self._write(batching_pb2.BatchResultChunk(results=results))
        finally:
            batch.abandon()

    async def _wait_for_stragglers(self) -> None:
        if self._stragglers:
            await asyncio.wait(self._stragglers)

    async def _write(self, chunk: batching_pb2.BatchResultChunk) -> None:
        async with self._writing:
            await self._context.write(chunk)
