"""The embedded engine's time for a batch, by its size."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.common.service import temporary_home
from shoal.engine.openvino import OpenVinoEngine
from shoal.modelconfig.batching import BatchingSettings

if TYPE_CHECKING:
    from benchmarks.batching.options import Options
    from shoal.engine.openvino import OpenVinoModel

MODEL = "efficientnet-lite0"
SIZES = (1, 2, 4, 8, 16, 32)
ROUNDS = 15


async def measure(options: Options) -> dict[str, Any]:
    """The fastest of some rounds for each size: what other work on the machine disturbed least."""
    rounds = 5 if options.quick else ROUNDS
    with temporary_home(MODEL) as (home, config):
        engine = OpenVinoEngine(cache=home.cache / "openvino")
        batching = BatchingSettings(max_batch_size=max(SIZES), instance_count=1)
        model = await engine.load(replace(config, batching=batching))
        options.say(f"batches of {SIZES[0]} to {SIZES[-1]}, {rounds} rounds")
        try:
            taken = [await _round(model) for _ in range(rounds)]
        finally:
            await engine.close()
    fastest = {size: min(one[size] for one in taken) for size in SIZES}
    return {
        "settings": {"model": MODEL, "instances": 1, "rounds": rounds},
        "batch_ms": {str(size): round(1000 * seconds, 3) for size, seconds in fastest.items()},
        "images_per_s": {str(size): round(size / seconds, 1) for size, seconds in fastest.items()},
    }


async def _round(model: OpenVinoModel) -> dict[int, float]:
    """Seconds of one batch of each size."""
    slot = await model.acquire()
    try:
        taken = {}
        for size in SIZES:
            started = time.perf_counter()
            await model.infer(slot, size)
            taken[size] = time.perf_counter() - started
    finally:
        model.release(slot)
    return taken
