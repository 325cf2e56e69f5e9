"""When there is little to do: what batching adds to latency, and what the path costs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks.batching.load import OpenLoop, offer
from benchmarks.batching.options import DEADLINE_SECONDS, MAX_BATCH_SIZE, measured_curve
from benchmarks.batching.replicas import Model
from benchmarks.batching.stack import Layout, running
from shoal.client.load.generator import LoadRequest, LoadSettings, run_load
from shoal.client.load.tally import merge
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import Task
from shoal.runtime.percentile import milliseconds, percentile

if TYPE_CHECKING:
    from benchmarks.batching.options import Options
    from benchmarks.batching.stack import Running
    from shoal.client.load.tally import LoadResult

RATE = 40.0
"""Pictures a second: an engine of the measured speed is idle nine tenths of the time even without batching."""
QUEUE_DELAY_SECONDS = 0.005
ROUNDS = 3
SECONDS = 10.0


async def measure(options: Options) -> dict[str, Any]:
    """Batching on and off in turns, then the bare path."""
    seconds = options.window(SECONDS)
    on = BatchingSettings(
        max_batch_size=MAX_BATCH_SIZE, max_queue_delay_microseconds=int(QUEUE_DELAY_SECONDS * 1e6)
    )  # fmt: skip
    off = replace(on, max_batch_size=1, max_queue_delay_microseconds=0)
    curve = measured_curve()
    models = {"on": Model(on, curve), "off": Model(off, curve), "bare": Model(off)}
    shares: dict[str, list[LoadResult]] = {"on": [], "off": []}
    async with running(Layout(models)) as service:
        for number in range(1 if options.quick else ROUNDS):
            for name, of in shares.items():
                options.say(f"round {number + 1}, batching {name}, {seconds:g} s")
                load = OpenLoop(RATE, seconds, options.warm_up, DEADLINE_SECONDS, name)
                of.append(await offer(service, load))
        options.say(f"the bare path, {seconds:g} s")
        bare = await _one_after_the_other(service, seconds, options.warm_up)
    results = {**{name: merge(of) for name, of in shares.items()}, "bare": bare}
    rows = [{"batching": name, **latency(result)} for name, result in results.items()]
    return {
        "settings": {
            "rate_per_s": RATE,
            "max_batch_size": MAX_BATCH_SIZE,
            "max_queue_delay_ms": 1000 * QUEUE_DELAY_SECONDS,
            "curve": curve.figures(),
            "deadline_s": DEADLINE_SECONDS,
            "seconds": seconds,
            "rounds": len(shares["on"]),
        },
        "rows": rows,
        "rise_ms": {name: round(rows[0][name] - rows[1][name], 3) for name in ("p50_ms", "p99_ms")},
    }


def latency(result: LoadResult) -> dict[str, Any]:
    """Of good answers, and how many there were."""
    ordered = sorted(result.latencies)
    return {
        "p50_ms": milliseconds(percentile(ordered, 0.5)),
        "p99_ms": milliseconds(percentile(ordered, 0.99)),
        "mean_batch_size": round(result.mean_batch_size, 2),
        "answers": len(ordered),
        "errors": dict(result.failed.codes),
    }


async def _one_after_the_other(service: Running, seconds: float, warm_up: float) -> LoadResult:
    """One caller: nothing ever waits for anything."""
    settings = LoadSettings(concurrency=1, duration_seconds=seconds, warm_up_seconds=warm_up)
    async with service.client() as client:
        return await run_load(client, [LoadRequest(Task.CLASSIFICATION, str(uuid4()), "bare")], settings)
