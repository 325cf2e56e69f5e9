"""The worker's side of the batching stream, for any unary method: permits, items as they arrive, results."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

import grpc

from shoal.batching.permits import DRAINING, PermitGate
from shoal.batching.v1 import batching_pb2
from shoal.errors import InvalidRequest, Unavailable
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

    def check(self, method: str) -> None:
        """Raises InvalidRequest if the model has no ``method``, such as ``/shoal.v1.Inference/Classify``."""
        ...

    def begin(self, method: str) -> Batch:
        """A batch of calls of ``method``."""
        ...


class BatchingService:
    """Serves batching streams for any number of models."""

    def __init__(self) -> None:
        self._handlers: dict[str, tuple[Handler, PermitGate]] = {}

    async def put(self, model: str, handler: Handler) -> None:
        """Serves ``model`` from now on; returns when the batches of an earlier handler of that name have finished."""
        old = self._handlers.get(model)
        limit = handler.settings.instance_count + PREFETCHED_BATCHES
        self._handlers[model] = handler, PermitGate(limit)
        metrics.WORKER_PERMITS.labels(model).set(limit)
        if old is not None:
            await _drain(old[1])

    async def remove(self, model: str) -> None:
        """Takes no more batches of ``model``; returns when those that have items are answered."""
        if old := self._handlers.pop(model, None):
            metrics.WORKER_PERMITS.labels(model).set(0)
            await _drain(old[1])

    async def drain(self) -> None:
        """Removes every model."""
        await asyncio.gather(*map(self.remove, list(self._handlers)))

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
            # Another worker may have it: what no worker has, the load balancer answers with NOT_FOUND.
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"this worker doesn't serve model {model!r}")
        handler, gate = self._handlers[model]
        method = told.get("x-shoal-method", "")
        try:
            handler.check(method)
            # A batcher has a queue a method, and none of them may shut out another.
            permit = await gate.acquire(f"{told.get('x-shoal-batcher', '')} {method}")
        except InvalidRequest as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Unavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        with permit:
            await context.send_initial_metadata((("x-shoal-batching", json.dumps(asdict(handler.settings))),))
            first = await _first_chunk(context, gate.closed)
            if first is None:
                return
            permit.use()
            with metrics.WORKER_BATCHES.labels(model).track_inprogress():
                batch = handler.begin(method)
                try:
                    await _receive(first, context, batch)
                    async for results in batch.finish():
                        permit.release()
                        await context.write(batching_pb2.BatchResultChunk(results=results))
                finally:
                    batch.abandon()


async def _drain(gate: PermitGate) -> None:
    gate.close()
    await gate.drained()


async def _first_chunk(context: Context, closed: asyncio.Event) -> batching_pb2.BatchChunk | None:
    """The first items; None where the batcher ends the stream without any. A closed gate ends it with UNAVAILABLE."""
    reading = asyncio.ensure_future(context.read())
    closing = asyncio.ensure_future(closed.wait())
    try:
        await asyncio.wait((reading, closing), return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            await context.abort(grpc.StatusCode.UNAVAILABLE, DRAINING)
        chunk = reading.result()
        return chunk if isinstance(chunk, batching_pb2.BatchChunk) else None
    finally:
        reading.cancel()
        closing.cancel()


async def _receive(first: batching_pb2.BatchChunk, context: Context, batch: Batch) -> None:
    chunk: object = first
    while isinstance(chunk, batching_pb2.BatchChunk):
        for item in chunk.items:
            batch.add(item)
        chunk = await context.read()
