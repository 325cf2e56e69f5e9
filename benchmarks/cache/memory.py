"""A million distinct pictures through one cache: what it says that it holds, and what the process took."""

from __future__ import annotations

import time
from multiprocessing import get_context
from pathlib import Path
from typing import Final

from shoal.v1 import inference_pb2 as pb
from shoal.worker.result_cache import ResultCache, Scope, lasting
from shoal.worker.result_cache_meter import ResultCacheMeter

LIMIT: Final = 64 * 2**20
PICTURES: Final = 1_000_000
_PAGE: Final = 4096


async def show(quick: bool) -> None:
    """Prints a row for each kind of answer; the answers are made up, the cache is the worker's."""
    print(
        "| answer, bytes | pictures | kept | held, MiB | process grew, MiB | us a picture |\n|---|---|---|---|---|---|"
    )
    for classes in (1, 5, 100):  # with 1, the table is at its emptiest
        alone = get_context("spawn").Process(target=_fill, args=(classes, PICTURES // 10 if quick else PICTURES))
        alone.start()  # it grows by nothing else
        alone.join()
        if alone.exitcode:
            raise SystemExit(alone.exitcode)


def _fill(classes: int, pictures: int) -> None:
    reply = pb.ClassifyReply(model_name="m", model_version=1)
    for index in range(classes):
        reply.classes.add(index=index, label=f"a label of class {index}", probability=0.1)
    answer = lasting(reply)
    assert answer is not None
    cache = ResultCache(seconds=3600, max_bytes=LIMIT, meter=ResultCacheMeter("memory"))
    scope = Scope(1, "me", b"")
    before, most, began = _resident(), 0, time.perf_counter()
    for number in range(pictures):
        key = scope.key(number.to_bytes(8, "big"))
        if cache.get(key) is None:
            cache.put(key, answer[:-1] + number.to_bytes(1 + number.bit_length() // 8, "big")[-1:])  # bytes of its own
        if cache.held_bytes > LIMIT:
            raise SystemExit(f"the cache holds {cache.held_bytes:,} bytes; the limit is {LIMIT:,}")
        if number % 10_000 == 0:
            most = max(most, _resident())
    seconds = time.perf_counter() - began
    grew = (max(most, _resident()) - before) / 2**20
    held = cache.held_bytes / 2**20
    print(
        f"| {len(answer)} | {pictures:,} | {len(cache):,} | {held:.1f} | {grew:.1f} | {1e6 * seconds / pictures:.1f} |"
    )


def _resident() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * _PAGE
