"""Sends many queries on one stream of calls: python ask_many.py HOST:PORT."""

import asyncio
import sys

import grpc
from nearest_pb2 import Neighbour, Query
from worker import VECTORS

from shoal.batching.v1.stream_pb2 import CallChunk, CallItem, CallResultChunk


async def main(batcher: str) -> None:
    """Asks for 500 of the collection's own vectors."""
    async with grpc.aio.insecure_channel(batcher) as channel:
        open_stream = channel.stream_stream(
            "/nearest.v1.Search/NearestStream", CallChunk.SerializeToString, CallResultChunk.FromString
        )
        stream = open_stream()
        queries = [Query(vector=vector).SerializeToString() for vector in VECTORS[:500]]
        await stream.write(CallChunk(calls=[CallItem(index=n, request=query) for n, query in enumerate(queries)]))
        await stream.done_writing()
        found = {}
        async for chunk in stream:
            for result in chunk.results:
                found[result.index] = result.message or Neighbour.FromString(result.response).id
        right = sum(found[n] == n for n in range(500))
        print(right, "of 500 found")
        sys.exit(right < 500)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
