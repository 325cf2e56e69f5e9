"""The two ends of a batching stream without our own code: workers and batchers of other versions, or that hang."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import grpc

from shoal.batcher.batch_stream import opener
from shoal.batching.v1 import batching_pb2
from shoal.batching.wire import SERVICE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Context = grpc.aio.ServicerContext[batching_pb2.BatchChunk, batching_pb2.BatchResultChunk]
    Call = grpc.aio.StreamStreamCall[batching_pb2.BatchChunk, batching_pb2.BatchResultChunk]


@contextlib.asynccontextmanager
async def raw_worker(script: Callable[[int, Context], Awaitable[None]]) -> AsyncIterator[str]:
    """A server whose n-th batching stream, counted from 0, is ``script(n, context)``; its target."""
    streams = 0

    async def compute(_: object, context: Context) -> None:
        nonlocal streams
        streams += 1
        await script(streams - 1, context)

    handler = grpc.stream_stream_rpc_method_handler(
        compute,
        request_deserializer=batching_pb2.BatchChunk.FromString,
        response_serializer=batching_pb2.BatchResultChunk.SerializeToString,
    )
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Compute": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(grace=None)


async def items_of_one_batch(context: Context) -> list[batching_pb2.BatchItem]:
    """Those of the next batch; none where the batcher half-closed the stream."""
    items: list[batching_pb2.BatchItem] = []
    while isinstance(chunk := await context.read(), batching_pb2.BatchChunk):
        items += chunk.items
        if chunk.last:
            return items
    return []


async def serve_batches(context: Context, batches: list[list[bytes]]) -> None:
    """As a worker of the first version does: no name, no trailers; answers each item with its own bytes."""
    while items := await items_of_one_batch(context):
        batches.append([item.request for item in items])
        results = [batching_pb2.BatchItemResult(index=item.index, response=item.request) for item in items]
        await context.write(batching_pb2.BatchResultChunk(results=results, permit=True))


@contextlib.asynccontextmanager
async def raw_batcher(
    target: str, name: str = "raw", model: str = "m", method: str = "/a.B/C", more: tuple[tuple[str, str], ...] = ()
) -> AsyncIterator[Call]:
    """One batching stream, with ``more`` metadata; nothing is read or written on it yet."""
    async with grpc.aio.insecure_channel(target) as channel:
        metadata = (("x-model-name", model), ("x-shoal-method", method), ("x-shoal-batcher", name), *more)
        call: Call = opener(channel)(metadata=metadata)
        try:
            yield call
        finally:
            call.cancel()


def batch(*requests: bytes, first: int = 0, last: bool = True) -> batching_pb2.BatchChunk:
    """A message with these items."""
    items = [batching_pb2.BatchItem(index=first + n, request=request) for n, request in enumerate(requests)]
    return batching_pb2.BatchChunk(items=items, last=last)
