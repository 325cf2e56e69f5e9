"""Measures one target: at saturation, then at half of that rate."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from benchmarks.common.load import run_window
from benchmarks.peers.settings import CALLERS, LOAD, SEED, TIMEOUT_SECONDS
from benchmarks.peers.target import check
from shoal.client.load.generator import LoadRequest, LoadSettings
from shoal.modelconfig.model import Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.common.cpu import Spent
    from benchmarks.peers.pictures import Size
    from benchmarks.peers.settings import Window, Windows
    from benchmarks.peers.target import Target
    from shoal.client.load.tally import LoadResult

SERVER = ("inference", "decode", "fetch", "rest", "batcher", "router", "supervisor", "server")
"""Components that are the server's; the store and the client are told apart from it."""


async def measure(target: Target, size: Size, references: Sequence[int], windows: Windows) -> dict[str, Any]:
    """Checks the answers, then measures; ready for JSON."""
    await check(target, references)
    saturated = await saturate(target, size, windows.saturated(size))
    rate = LOAD * saturated["images_per_s"]
    half = await at_rate(target, rate, windows.half(size)) if rate else None
    return {**target.told, "saturated": saturated, "half": half}


async def saturate(target: Target, size: Size, window: Window) -> dict[str, Any]:
    """A closed loop."""
    settings = LoadSettings(
        concurrency=CALLERS[size],
        duration_seconds=window.seconds,
        warm_up_seconds=window.warm_up_seconds,
        timeout_seconds=TIMEOUT_SECONDS,
    )
    result, spent = await _run(target, settings)
    return kept(result, spent)


async def at_rate(target: Target, rate: float, window: Window) -> dict[str, Any]:
    """Poisson arrivals; latency counts from the intended send time."""
    settings = LoadSettings(
        rate=rate,
        duration_seconds=window.seconds,
        warm_up_seconds=window.warm_up_seconds,
        timeout_seconds=TIMEOUT_SECONDS,
        seed=SEED,
    )
    result, spent = await _run(target, settings)
    milliseconds = [round(1000 * seconds, 2) for seconds in sorted(result.latencies)]
    return {**kept(result, spent), "rate_per_s": round(rate, 2), "latencies_ms": milliseconds}


async def _run(target: Target, settings: LoadSettings) -> tuple[LoadResult, Spent]:
    requests = [LoadRequest(Task.CLASSIFICATION, image, target.model) for image in target.images]
    async with target.connect() as caller:
        return await run_window(caller, requests, settings, target.snapshot)


def kept(result: LoadResult, spent: Spent) -> dict[str, Any]:
    """What is kept of a window."""
    summary = result.summary()
    return {
        "images": result.answered,
        "images_per_s": round(result.answered / spent.seconds, 3),
        "cpu_ms_per_image": cpu_ms(spent.components, result.answered),
        "components_ms_per_image": {
            name: round(1000 * seconds / max(result.answered, 1), 4) for name, seconds in spent.components.items()
        },
        "other_cores": round(spent.other_cores, 3),
        "latency_ms": summary["latency_ms"],
        "mean_batch_size": summary["mean_batch_size"],
        "send_lag_ms": summary["send_lag_ms"],
        "errors": summary["errors"],
        "reasons": summary["reasons"],
    }


def cpu_ms(components: Mapping[str, float], images: int) -> dict[str, float]:
    """CPU milliseconds a picture of server, store and client."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for name, value in components.items():
        seconds["server" if name in SERVER else name] += value
    return {
        name: round(1000 * seconds[name] / max(images, 1), 4)
        for name in ("server", "store", "client")
        if name in seconds
    }
