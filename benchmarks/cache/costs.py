"""What a worker spends on a picture without a cache, on a miss and on a hit: its real batches, fetcher and decoder.

The store is obstore's memory, the engine answers at once: what the cache saves of inference comes on top of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
import uuid
from itertools import islice
from statistics import median
from typing import Any, Final

from obstore.store import MemoryStore

from benchmarks.batching.worker_items import MODEL, chunks, picture_model
from benchmarks.cache.contents import distinct
from shoal.batching.v1.batching_pb2 import BatchChunk
from shoal.errors import Code
from shoal.worker.batch import PictureBatch
from shoal.worker.result_cache import ResultCache
from shoal.worker.result_cache_meter import ResultCacheMeter

BATCH: Final = 8
SIDE: Final = 224
PICTURES: Final = 1600
ROUNDS: Final = 9


async def show(quick: bool) -> None:
    """Prints CPU time and speed by what the cache has, and both against no cache, each within its round."""
    pictures = PICTURES // 4 if quick else PICTURES
    store = MemoryStore()
    names = [str(uuid.uuid4()) for _ in range(pictures)]
    for name, content in zip(names, islice(distinct(), pictures), strict=True):
        await store.put_async(f"me/{name}.jpg", content)
    plain = picture_model(store, BATCH, side=SIDE)
    messages = list(chunks(names, pictures // BATCH, BATCH))
    await _run(plain, messages)
    found: dict[str, list[tuple[float, ...]]] = {"off": [], "off again": [], "miss": [], "hit": []}
    for _ in range(3 if quick else ROUNDS):
        cached = dataclasses.replace(plain, cache=_cache())
        for what, model in (("off", plain), ("miss", cached), ("hit", cached), ("off again", plain)):
            found[what].append(await _run(model, messages))
    _print(found)


def _cache() -> ResultCache:
    return ResultCache(seconds=3600, max_bytes=2**26, meter=ResultCacheMeter(MODEL))


async def _run(model: Any, messages: list[bytes]) -> tuple[float, ...]:
    """Microseconds a picture: CPU in all, CPU of the event loop, and time."""
    batches = iter([BatchChunk.FromString(message).items for message in messages])

    async def stream() -> None:
        for items in batches:
            batch = PictureBatch(model)
            batch.add(*items)
            async for group in batch.finish():
                if any(result.code != Code.OK for result in group):
                    raise SystemExit(f"a picture failed: {group[0].message}")
            batch.abandon()

    clocks = time.process_time, time.thread_time, time.perf_counter
    began = [clock() for clock in clocks]
    await asyncio.gather(*(stream() for _ in range(3)))
    pictures = len(messages) * BATCH
    return tuple((clock() - since) / pictures * 1e6 for clock, since in zip(clocks, began, strict=True))


def _print(found: dict[str, list[tuple[float, ...]]]) -> None:
    print("| us a picture | CPU | of off, each round | event loop | of off | time | of off |")
    print("|---|---|---|---|---|---|---|")
    for what, rounds in found.items():
        cells = []
        for column in range(3):
            values = [each[column] for each in rounds]
            ratios = [each[column] / off[column] for each, off in zip(rounds, found["off"], strict=True)]
            cells += [f"{median(values):.0f}", f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"]
        print(f"| {what} | {' | '.join(cells)} |")
