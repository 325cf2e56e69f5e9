"""From a fifth of the capacity to twice of it, in an open loop: batches grow, goodput stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.batching.load import OpenLoop, figures, offer
from benchmarks.batching.options import CAPACITY, DEADLINE_SECONDS, MAX_BATCH_SIZE, scripted_model
from benchmarks.batching.stack import Layout, running

if TYPE_CHECKING:
    from benchmarks.batching.options import Options

LOADS = (0.2, 0.5, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0)
QUICK_LOADS = (0.2, 0.9, 1.0, 2.0)
SECONDS = 30.0
MAX_QUEUE_SIZE = 2 * MAX_BATCH_SIZE
"""Two batches' worth: enough that no worker ever waits for requests, and no more, since all else is only delay."""


async def measure(options: Options) -> dict[str, Any]:
    """One row a load, on one service."""
    model, settings = scripted_model(MAX_QUEUE_SIZE)
    seconds = options.window(SECONDS)
    rows = []
    async with running(Layout({"scripted": model})) as service:
        for load in QUICK_LOADS if options.quick else LOADS:
            options.say(f"{load:g} of the capacity, {seconds:g} s")
            result = await offer(service, OpenLoop(load * CAPACITY, seconds, options.warm_up, DEADLINE_SECONDS))
            rows.append({"load": load, **figures(result)})
    return {"settings": {**settings, "replicas": 1, "batchers": 1, "seconds": seconds}, "rows": rows, **aims(rows)}


def aims(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The two figures that were aimed at: goodput at twice the capacity to the peak, and its p99 to that at 0.9."""
    by_load = {row["load"]: row for row in rows}
    peak = max(row["goodput_per_s"] for row in rows)
    return {
        "goodput_kept": round(by_load[2.0]["goodput_per_s"] / peak, 3),
        "p99_ratio": round(by_load[2.0]["p99_ms"] / by_load[0.9]["p99_ms"], 3),
    }
