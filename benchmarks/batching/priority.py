"""Interactive callers alone, and beside a stream of bulk calls that would fill the service by itself.

In turns, with one service: interactive load alone, bulk alone, both, and both where nobody is bulk.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks.batching.load import SEED
from benchmarks.batching.options import CAPACITY, DEADLINE_SECONDS, MAX_BATCH_SIZE, scripted_model
from benchmarks.batching.stack import Layout, running
from shoal.client.load.generator import LoadRequest, LoadSettings, run_load
from shoal.client.load.tally import LoadResult, merge
from shoal.modelconfig.model import Task
from shoal.runtime.percentile import milliseconds, percentile
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from benchmarks.batching.options import Options
    from benchmarks.batching.stack import Running

LOAD = 0.3
"""The interactive part, to the capacity."""
BULK_CALLERS = 6 * MAX_BATCH_SIZE
"""Of the closed loop, on a stream: two batches are at the worker, and there is always more."""
BULK_DEADLINE_SECONDS = 30.0
SECONDS = 10.0
ROUNDS = 3
MODEL = "scripted"
WINDOWS: dict[str, tuple[bool, Priority | None]] = {
    "alone": (True, None),
    "bulk_alone": (False, Priority.BULK),
    "beside": (True, Priority.BULK),
    "no_priority": (True, Priority.INTERACTIVE),
}
"""Whether there are interactive callers, and the priority of those who ask much."""


async def measure(options: Options) -> dict[str, Any]:
    """One row a window, and the ratios."""
    model, told = scripted_model()
    seconds = options.window(SECONDS)
    rounds = 1 if options.quick else ROUNDS
    results: dict[str, list[tuple[LoadResult | None, LoadResult | None]]] = {name: [] for name in WINDOWS}
    async with running(Layout({MODEL: model})) as service:
        for number in range(rounds):
            for name, (interactive, much) in WINDOWS.items():
                options.say(f"round {number + 1}, {name.replace('_', ' ')}, {seconds:g} s")
                results[name].append(await _window(service, interactive, much, seconds, options.warm_up))
    rows = [{"window": name, **_figures(of)} for name, of in results.items()]
    settings = {
        **told,
        "interactive_load": LOAD,
        "bulk_callers": BULK_CALLERS,
        "bulk_deadline_s": BULK_DEADLINE_SECONDS,
        "seconds": seconds,
        "rounds": rounds,
    }
    return {"settings": settings, "rows": rows, **ratios(rows)}


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The aims: p99 beside bulk to that alone, and bulk's rate to what interactive calls leave of bulk's rate alone."""
    by_window = {row["window"]: row for row in rows}
    alone, beside, same = (by_window[name] for name in ("alone", "beside", "no_priority"))
    left = by_window["bulk_alone"]["much_per_s"] - beside["interactive_per_s"]
    return {
        "p50_ratio": round(beside["p50_ms"] / alone["p50_ms"], 3),
        "p99_ratio": round(beside["p99_ms"] / alone["p99_ms"], 3),
        "p99_ratio_without": round(same["p99_ms"] / alone["p99_ms"], 3),
        "bulk_of_the_rest": round(beside["much_per_s"] / left, 3),
    }


async def _window(
    service: Running, interactive: bool, much: Priority | None, seconds: float, warm_up: float
) -> tuple[LoadResult | None, LoadResult | None]:
    """What the interactive callers and those who ask much saw; None: there were none."""

    async def load(priority: Priority, settings: LoadSettings, streams: bool | None = None) -> LoadResult:
        async with service.client(priority, streams=streams) as client:
            await client.connect()
            return await run_load(client, [LoadRequest(Task.CLASSIFICATION, str(uuid4()), MODEL)], settings)

    async def nobody() -> None:
        pass

    few = LoadSettings(
        rate=LOAD * CAPACITY,
        duration_seconds=seconds,
        warm_up_seconds=warm_up,
        timeout_seconds=DEADLINE_SECONDS,
        seed=SEED,
    )
    many = LoadSettings(
        concurrency=BULK_CALLERS,
        duration_seconds=seconds,
        warm_up_seconds=warm_up,
        timeout_seconds=BULK_DEADLINE_SECONDS,
    )
    return await asyncio.gather(
        load(Priority.INTERACTIVE, few) if interactive else nobody(),
        load(much, many, streams=True) if much else nobody(),
    )


def _figures(windows: list[tuple[LoadResult | None, LoadResult | None]]) -> dict[str, Any]:
    """Of all rounds together; no figure of a kind of caller that wasn't there."""
    few = [interactive for interactive, _ in windows if interactive]
    many = [much for _, much in windows if much]
    figures: dict[str, Any] = {}
    if few:
        whole = merge(few)
        ordered = sorted(whole.latencies)
        figures = {
            "interactive_per_s": _rate(few),
            "p50_ms": milliseconds(percentile(ordered, 0.5)),
            "p99_ms": milliseconds(percentile(ordered, 0.99)),
            "interactive_batch": round(whole.mean_batch_size, 2),
            "interactive_errors": dict(whole.failed.codes),
            "send_lag_max_ms": milliseconds(whole.lag_max_seconds),
        }
    if many:
        whole = merge(many)
        figures |= {
            "much_per_s": _rate(many),
            "much_p99_ms": milliseconds(percentile(sorted(whole.latencies), 0.99)),
            "much_batch": round(whole.mean_batch_size, 2),
            "much_errors": dict(whole.failed.codes),
        }
    return figures


def _rate(results: list[LoadResult]) -> float:
    return round(sum(one.images_per_s for one in results) / len(results), 1)
