"""A latency objective beside fixed delays: what a picture costs an engine, and how late answers come, by the load.

Part is measured on the real service, as far as two cores carry it. The whole, up to 16 replicas at full load, is
calculated under virtual time with the same policy; such rows say so, and there the paths and timers are ideal.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from benchmarks.batching.load import OpenLoop, figures, offer
from benchmarks.batching.options import CAPACITY, DEADLINE_SECONDS, measured_curve
from benchmarks.batching.replicas import Model
from benchmarks.batching.spread import engine_milliseconds
from benchmarks.batching.stack import Layout, running
from shoal.modelconfig.batching import BatchingSettings
from shoal.runtime.percentile import milliseconds, percentile
from shoal.runtime.priority import Priority
from shoal.simulate.queue import Load, VirtualService

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.batching.options import Options
    from shoal.simulate.curve import CostCurve

OBJECTIVE_MS = 100
DELAYS_MS = (0, 5, 20, 50, 100)
LOADS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
REPLICAS = (1, 2, 4, 8, 16)
QUICK_LOADS, QUICK_REPLICAS = (0.1, 0.3, 0.9), (1, 16)
MAX_BATCH_SIZE = 8
MEASURED = {1: (0.1, 0.3, 0.6, 0.9), 4: (0.1, 0.3)}
"""Loads by replicas: what two cores carry, client included."""
QUICK_MEASURED = {1: (0.3,)}
MEASURED_DELAYS_MS = (0, 20, 100)
SECONDS = 8.0
VIRTUAL_PICTURES = 12_000
PATH_SECONDS, PREPARE_SECONDS = 0.001, 0.0
"""Of the calculation; scripted workers fetch nothing."""


def ways(delays_ms: tuple[int, ...]) -> dict[str, BatchingSettings]:
    """The objective and the delays, by the name of the model that has each."""
    base = BatchingSettings(max_batch_size=MAX_BATCH_SIZE)
    delays = {f"delay-{delay}": replace(base, max_queue_delay_microseconds=1000 * delay) for delay in delays_ms}
    return {f"objective-{OBJECTIVE_MS}": replace(base, latency_objective_microseconds=1000 * OBJECTIVE_MS), **delays}


async def measure(options: Options) -> dict[str, Any]:
    """One row a way, load and number of replicas."""
    curve = measured_curve().scaled(MAX_BATCH_SIZE, CAPACITY)
    seconds = options.window(SECONDS)
    measured = []
    for replicas, loads in (QUICK_MEASURED if options.quick else MEASURED).items():
        measured += await _measure(options, curve, replicas, loads, seconds)
    options.say("the whole under virtual time")
    calculated = [
        calculate(name, settings, curve, replicas, load)
        for replicas in (QUICK_REPLICAS if options.quick else REPLICAS)
        for load in (QUICK_LOADS if options.quick else LOADS)
        for name, settings in ways(DELAYS_MS).items()
    ]
    told = {
        "objective_ms": OBJECTIVE_MS,
        "max_batch_size": MAX_BATCH_SIZE,
        "instance_count": 1,
        "curve": curve.figures(),
        "capacity_per_s": CAPACITY,
        "deadline_s": DEADLINE_SECONDS,
        "seconds": seconds,
        "calculated_path_ms": 1000 * PATH_SECONDS,
    }
    return {"settings": told, "measured": measured, "calculated": calculated}


async def _measure(
    options: Options, curve: CostCurve, replicas: int, loads: tuple[float, ...], seconds: float
) -> list[dict[str, Any]]:
    models = {name: Model(settings, curve) for name, settings in ways(MEASURED_DELAYS_MS).items()}
    rows = []
    async with running(Layout(models, replicas, batchers=1)) as service:
        for load in loads:
            for name in models:
                options.say(f"{replicas} replicas, {load:g} of the capacity, {name}, {seconds:g} s")
                rate = load * replicas * CAPACITY
                result = await offer(service, OpenLoop(rate, seconds, options.warm_up, DEADLINE_SECONDS, name))
                engine = engine_milliseconds(result, curve)
                rows.append({"replicas": replicas, "load": load, "way": name, **_cost(engine), **figures(result)})
    return rows


def calculate(name: str, settings: BatchingSettings, curve: CostCurve, replicas: int, load: float) -> dict[str, Any]:
    """The same under virtual time."""
    rate = load * replicas * CAPACITY
    seconds = VIRTUAL_PICTURES / rate
    service = VirtualService(
        settings, curve, replicas, path_seconds=PATH_SECONDS, prepare_seconds=PREPARE_SECONDS, noise=0.0
    )
    service.run(seconds, [Load(rate, timeout=DEADLINE_SECONDS)])
    latencies = service.latencies(Priority.INTERACTIVE, since=seconds / 10)
    spent = sum(service.busy.values())
    return {
        "replicas": replicas,
        "load": load,
        "way": name,
        **_cost(round(1000 * spent / len(service.answered), 3)),
        "mean_batch_size": round(len(service.answered) / len(service.batches), 2),
        "p50_ms": milliseconds(percentile(latencies, 0.5)),
        "p99_ms": milliseconds(percentile(latencies, 0.99)),
        "refused": len(service.rejected),
        "used_replicas": used(service.busy),
    }


def _cost(engine_ms: float) -> dict[str, float]:
    """What a picture costs an engine, and that to full batches."""
    return {"engine_ms_per_image": engine_ms, "to_full": round(engine_ms * CAPACITY / 1000, 3)}


def used(busy: Mapping[str, float]) -> int:
    """Replicas that did more than a hundredth of all that the busiest did."""
    return sum(seconds > max(busy.values()) / 100 for seconds in busy.values())
