"""Loads the service through its ordinary stub, each 50th query bad: python load.py HOST:PORT [QUERIES [CALLERS]]."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from itertools import count

import grpc
import numpy as np
from nearest_pb2 import Query
from nearest_pb2_grpc import SearchStub
from worker import VECTORS

BAD_EVERY = 50


async def main(target: str, queries: int = 2_000, callers: int = 64) -> None:
    """A closed loop: each caller sends its next query when it has the answer to the last."""
    outcomes: Counter[str] = Counter()
    passes = 0.0
    numbers = count()
    noise = np.random.default_rng(seed=1)

    async def call(stub: SearchStub) -> None:
        nonlocal passes
        while (number := next(numbers)) < queries:
            expected = number % len(VECTORS)
            vector = VECTORS[expected] + 0.02 * noise.standard_normal(VECTORS.shape[1], np.float32)
            bad = number % BAD_EVERY == BAD_EVERY - 1
            try:
                answer = await stub.Nearest(Query(vector=vector[:-1] if bad else vector), timeout=10)
            except grpc.aio.AioRpcError as error:
                outcomes[f"{'bad' if bad else 'good'}: {error.code().name}"] += 1
            else:
                outcomes["good: found" if answer.id == expected and not bad else "WRONG"] += 1
                passes += 1 / answer.batch_size

    async with grpc.aio.insecure_channel(target) as channel:
        await asyncio.wait_for(channel.channel_ready(), 20)
        began = time.perf_counter()
        await asyncio.gather(*(call(SearchStub(channel)) for _ in range(callers)))
        seconds = time.perf_counter() - began
    found = outcomes["good: found"]
    print(f"{queries / seconds:.0f} queries/s, {found / passes if passes else 0:.1f} to a pass; {dict(outcomes)}")
    sys.exit(found + outcomes["bad: INVALID_ARGUMENT"] != queries)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
