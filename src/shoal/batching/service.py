"""The gRPC service that a worker offers to batchers, for any number of models and any unary method."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc

from shoal import rpc
from shoal.batching.permits import PermitGate
from shoal.batching.stream import ServedStream
from shoal.batching.v1 import batching_pb2
from shoal.errors import InvalidRequest, Unavailable
from shoal.observe import metrics

if TYPE_CHECKING:
    from shoal.batching.stream import Context, Handler

SERVICE = "shoal.batching.v1.Batching"
PREFETCHED_BATCHES = 1
"""Beyond those that execute: its pictures are fetched and decoded meanwhile."""


class BatchingService:
    """Serves batching streams for any number of models."""

    def __init__(self) -> None:
        self._handlers: dict[str, tuple[Handler, PermitGate]] = {}
        self._streams = 0
        self._deserted = asyncio.Event()
        self._deserted.set()

    async def put(self, model: str, handler: Handler) -> None:
        """Serves ``model`` from now on; returns when the batches of an earlier handler of that name have finished."""
        old = self._handlers.get(model)
        limit = handler.settings.instance_count + PREFETCHED_BATCHES
        gate = PermitGate(limit)
        self._handlers[model] = handler, gate
        metrics.WORKER_PERMITS.labels(model).set(limit)
        metrics.WORKER_BATCHES.labels(model).set_function(lambda: gate.in_use)
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

    async def deserted(self) -> None:
        """Returns when no stream is open."""
        await self._deserted.wait()

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
        self._streams += 1
        self._deserted.clear()
        try:
            await self._serve(context)
        finally:
            self._streams -= 1
            if not self._streams:
                self._deserted.set()

    async def _serve(self, context: Context) -> None:
        told = rpc.told(context)
        model = told.get("x-model-name", "")
        if model not in self._handlers:
            # Another worker may have it: what no worker has, the load balancer answers with NOT_FOUND.
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"this worker doesn't serve model {model!r}")
        handler, gate = self._handlers[model]
        method = told.get("x-shoal-method", "")
        try:
            handler.check(method)
            # A batcher has a queue a method, and none of them may shut out another.
            await ServedStream(context, handler, gate, method, f"{told.get('x-shoal-batcher', '')} {method}").serve()
        except InvalidRequest as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Unavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))


async def _drain(gate: PermitGate) -> None:
    gate.close()
    await gate.drained()
