"""The gRPC service that a worker offers to batchers, for any number of models and any unary method."""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import grpc

from shoal.batching import wire
from shoal.batching.permits import PermitGate
from shoal.batching.served_stream import Carries, Hung, ServedStream
from shoal.batching.v1 import batching_pb2
from shoal.errors import InvalidRequest, Unavailable
from shoal.observe import metrics
from shoal.runtime import rpc
from shoal.runtime.priority import Priority
from shoal.runtime.share import share
from shoal.runtime.timeouts import Timeouts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.batching.served_stream import Context, Handler

PREFETCHED_BATCHES = 1
"""Beyond those that execute: its pictures are fetched and decoded meanwhile."""


class _Served(NamedTuple):
    handler: Handler
    gate: PermitGate


class BatchingService:
    """Serves batching streams for any number of models."""

    def __init__(self, processes: int = 1) -> None:
        """Prepares.

        Args:
            processes: That share the models' instances, this one among them: each grants its part of the permits.
        """
        self._processes = processes
        self._name = secrets.token_hex(8)
        self._timeouts = Timeouts()
        self._served: dict[str, tuple[_Served, ...]] = {}
        self._streams = 0
        self._deserted = asyncio.Event()
        self._deserted.set()

    async def put(self, model: str, *handlers: Handler) -> None:
        """Serves ``model`` from now on; returns when the batches of earlier handlers of that name have finished.

        The first handler that doesn't refuse a method takes its batches; each has permits of its own.
        """
        old = self._served.get(model, ())
        counts = {priority: metrics.WORKER_PERMIT_SECONDS.labels(model, priority) for priority in Priority}

        def used(seconds: float, priority: Priority) -> None:
            counts[priority].inc(seconds)

        served = tuple(
            _Served(handler, PermitGate(self._limit(handler.settings.instance_count), used=used))
            for handler in handlers
        )
        self._served[model] = served
        self._show_limits(model, served)
        _show_use(model, served)
        await _drain(old)

    async def remove(self, model: str) -> None:
        """Takes no more batches of ``model``; returns when those that have items are answered."""
        if old := self._served.pop(model, None):
            self._show_limits(model, ())
            await _drain(old)

    async def drain(self) -> None:
        """Removes every model."""
        await asyncio.gather(*map(self.remove, list(self._served)))

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
        return grpc.method_handlers_generic_handler(wire.SERVICE, {"Compute": compute})

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

    def _limit(self, instances: int) -> int:
        return share(instances, self._processes) + PREFETCHED_BATCHES

    def _show_limits(self, model: str, served: Sequence[_Served]) -> None:
        """Each process tells its part, so that sums over processes are right."""
        settings = [handler.settings for handler, _ in served]
        metrics.WORKER_BATCH_LIMIT.labels(model).set(max((each.max_batch_size for each in settings), default=0))
        metrics.WORKER_INSTANCES.labels(model).set(sum(each.instance_count for each in settings) / self._processes)
        metrics.WORKER_PERMITS.labels(model).set(sum(gate.limit for _, gate in served))

    async def _serve(self, context: Context) -> None:
        told = rpc.told(context)
        model = told.get(wire.MODEL, "")
        if model not in self._served:
            # Another worker may have it: what no worker has, the load balancer answers with NOT_FOUND.
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"this worker doesn't serve model {model!r}")
        method = told.get(wire.METHOD, "")
        try:
            handler, gate = _of_method(self._served[model], method)
        except InvalidRequest as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        # A batcher has a queue a method, and none of them may shut out another.
        asker = f"{told.get(wire.BATCHER, '')} {method}"
        # An older batcher says nothing, and a newer one may know more levels.
        bulk = told.get(wire.PRIORITY) == Priority.BULK
        carries = Carries(method, Priority.BULK if bulk else Priority.INTERACTIVE)
        stream = ServedStream(context, handler, gate, carries, asker, self._name, self._timeouts, self._processes)
        try:
            await stream.serve()
        except Hung as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except Unavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error), ((wire.TAKEN, str(stream.taken)),))


def _of_method(candidates: Sequence[_Served], method: str) -> _Served:
    """The first that takes ``method``. Raises InvalidRequest with every refusal where none does."""
    refusals = []
    for served in candidates:
        try:
            served.handler.check(method)
        except InvalidRequest as error:
            refusals.append(str(error))
        else:
            return served
    raise InvalidRequest("; ".join(refusals))


def _show_use(model: str, served: Sequence[_Served]) -> None:
    def in_use(priority: Priority) -> int:
        return sum(gate.in_use_of(priority) for _, gate in served)

    for priority in Priority:
        metrics.WORKER_BATCHES.labels(model, priority).set_function(partial(in_use, priority))


async def _drain(served: Sequence[_Served]) -> None:
    for _, gate in served:
        gate.close()
    for _, gate in served:
        await gate.drained()
