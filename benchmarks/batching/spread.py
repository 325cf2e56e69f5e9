"""The same load over more and more replicas: batches made before the load balancer, and inside each replica.

The load is that of many callers with one request each, so each goes by itself: by a stream all would reach one batcher.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.batching.load import OpenLoop, figures, offer
from benchmarks.batching.options import CAPACITY, DEADLINE_SECONDS, scripted_model
from benchmarks.batching.stack import Layout, running

if TYPE_CHECKING:
    from benchmarks.batching.options import Options
    from shoal.client.load.tally import LoadResult
    from shoal.simulate.curve import CostCurve

LOAD = 0.8
"""Of the capacity of one replica; more replicas have less to do each."""
REPLICAS = (1, 2, 4, 8, 16)
BATCHERS = (0, 1, 2, 4)
"""0: none before the load balancer; each replica batches the calls that it gets, with the same policy and settings."""
QUICK_REPLICAS, QUICK_BATCHERS = (1, 16), (0, 1, 4)
SECONDS = 8.0


async def measure(options: Options) -> dict[str, Any]:
    """One row a number of batchers and replicas."""
    model, settings = scripted_model()
    seconds = options.window(SECONDS)
    load = OpenLoop(LOAD * CAPACITY, seconds, options.warm_up, DEADLINE_SECONDS)
    rows = []
    for batchers in QUICK_BATCHERS if options.quick else BATCHERS:
        for replicas in QUICK_REPLICAS if options.quick else REPLICAS:
            options.say(f"{batchers or 'no'} batchers, {replicas} replicas, {seconds:g} s")
            layout = Layout({"scripted": model}, replicas, batchers, inside=not batchers)
            async with running(layout) as service:
                result = await offer(service, load, streams=False)
            engine = engine_milliseconds(result, model.curve)
            rows.append({"batchers": batchers, "replicas": replicas, "engine_ms_per_image": engine, **figures(result)})
    told = {**settings, "load": LOAD, "rate_per_s": load.rate, "seconds": seconds}
    return {"settings": told, "rows": rows, "kept": kept(rows)}


def engine_milliseconds(result: LoadResult, curve: CostCurve) -> float:
    """Of an engine, for one picture of a batch of the sizes that came."""
    return round(1000 * (curve.base * result.timings.batches / len(result.latencies) + curve.slope), 3)


def kept(rows: list[dict[str, Any]]) -> dict[str, float]:
    """What is left at the most replicas of the mean batch size at one, for each number of batchers."""
    most = max(row["replicas"] for row in rows)
    sizes = {(row["batchers"], row["replicas"]): row["mean_batch_size"] for row in rows}
    return {
        str(batchers): round(sizes[batchers, most] / sizes[batchers, 1], 3)
        for batchers in dict.fromkeys(row["batchers"] for row in rows)
    }
