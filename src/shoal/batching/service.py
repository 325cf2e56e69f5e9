"""The worker's side of the batching stream, for any unary method: permits, items as they arrive, results."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

import grpc

from shoal.batching.permits import PermitGate
from shoal.batching.v1 import batching_pb2
from shoal.errors import Unavailable
from shoal.observe import metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from shoal.modelstore.config import BatchingSettings

    Context = grpc.aio.ServicerContext[batching_pb2.BatchChunk, batching_pb2.BatchResultChunk]

log = logging.getLogger(__name__)

SERVICE = "shoal.batching.v1.Batching"
PREFETCHED_BATCHES = 1
"""Beyond those that execute: its pictures are fetched and decoded meanwhile."""


class Batch(Protocol):
    """One batch on its way through a worker."""

    def add(self, item: batching_pb2.BatchItem) -> None:
        """Takes an item and starts on it at once; the batch isn't closed yet. Never raises."""

    def finish(self) -> AsyncIterator[Sequence[batching_pb2.BatchItemResult]]:
        """The batch is closed: yields each item's result once, in any order and grouping.

        After the first group the batch no longer counts against the permits.
        """
        ...

    def abandon(self) -> None:
        """The batch is over or its batcher is gone: stops what is left of it. Never raises."""


class Handler(Protocol):
    """Serves the batches of one model."""

    @property
    def settings(self) -> BatchingSettings:
        """What the batcher is told."""
        ...

    def begin(self, method: str) -> Batch:
        """A batch of calls of ``method``, such as ``/shoal.v1.Inference/Classify``."""
        ...


class BatchingService:
    """Serves batching streams for any number of models."""

    def __init__(self) -> None:
        self._handlers: dict[str, tuple[Handler, PermitGate]] = {}
        self._draining = asyncio.Event()
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, model: str, handler: Handler) -> None:
        """Serves ``model`` from now on; batches of an earlier handler of that name finish with it."""
        self.remove(model)
        limit = handler.settings.instance_count + PREFETCHED_BATCHES
        self._handlers[model] = handler, PermitGate(limit)
        metrics.WORKER_PERMITS.labels(model).set(limit)

    def remove(self, model: str) -> None:
        """Takes no more batches of ``model``."""
        if known := self._handlers.pop(model, None):
            known[1].close()

    async def drain(self) -> None:
        """Turns away parked streams; returns when the batches that have items are answered."""
        self._draining.set()
        for _, gate in self._handlers.values():
            gate.close()
        await self._idle.wait()

    def rpc_handler(self) -> grpc.GenericRpcHandler:
        """What ``grpc.aio.Server.add_generic_rpc_handlers`` takes."""
        compute = grpc.stream_stream_rpc_method_handler(
            self.compute,
            request_deserializer=batching_pb2.BatchChunk.FromString,
            response_serializer=batching_pb2.BatchResultChunk.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Compute": compute})

    async def compute(self, _: object, context: Context) -> None:
        """One batching stream."""
        told = {key: str(value) for key, value in context.invocation_metadata() or ()}
        model = told.get("x-model-name", "")
        if model not in self._handlers:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"model {model!r} is not served here")
        handler, gate = self._handlers[model]
        try:
            permit = await gate.acquire(told.get("x-shoal-batcher", ""))
        except Unavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        with permit:
            await context.send_initial_metadata((("x-shoal-batching", json.dumps(asdict(handler.settings))),))
            first = await self._first_chunk(context)
            if first is None:
                return
            in_flight = metrics.WORKER_BATCHES.labels(model)
            with in_flight.track_inprogress():
                self._enter()
                batch = handler.begin(told.get("x-shoal-method", ""))
                try:
                    await _receive(first, context, batch)
                    async for results in batch.finish():
                        permit.release()
                        await context.write(batching_pb2.BatchResultChunk(results=results))
                finally:
                    batch.abandon()
                    self._leave()

    async def _first_chunk(self, context: Context) -> batching_pb2.BatchChunk | None:
        """The first items; None where the batcher closed the stream without any. A draining worker takes none."""
        reading = asyncio.ensure_future(context.read())
        draining = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait((reading, draining), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the worker is draining")
            chunk = reading.result()
            return chunk if isinstance(chunk, batching_pb2.BatchChunk) else None
        finally:
            reading.cancel()
            draining.cancel()

    def _enter(self) -> None:
        self._active += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._active -= 1
        if not self._active:
            self._idle.set()


async def _receive(first: batching_pb2.BatchChunk, context: Context, batch: Batch) -> None:
    chunk: object = first
    while isinstance(chunk, batching_pb2.BatchChunk):
        for item in chunk.items:
            batch.add(item)
        chunk = await context.read()
