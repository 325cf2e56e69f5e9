"""What a pool's models are served with: batch sizes, numbers at once, when batches close, worker processes.

Some of it has no formula that always holds, so it is tried: ``choices``.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Final, Literal

from shoal.modelconfig.batching import BatchingSettings
from shoal.plan.bound import best
from shoal.plan.pool import Tuning
from shoal.service.spec import MOST_WORKER_PROCESSES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal.plan.bound import PlannedLoad
    from shoal.plan.pool import PlannedPool

PROCESS_IMAGES_PER_S: Final = 1500.0
"""Pictures a second that one worker process carries: docs/triton.md."""
WAYS_SECONDS: Final = 0.002
"""From client to batcher to worker and back, as ``shoal.simulate.scenario.Scenario`` has it."""
_GATHERING: Final = 2.0
"""A delay is so many times what a full batch gathers for in the mean. Of eight Poisson arrivals 99 of 100 take less."""


def choices(pool: PlannedPool) -> Iterator[Tuning]:
    """Those worth a try."""
    shares: tuple[Literal["each", "shares"], ...] = ("each", "shares") if len(pool.models) > 1 else ("each",)
    for closing, instances in product(("objective", "delay"), shares):
        yield Tuning(closing, instances)  # type: ignore[arg-type]


def settings(pool: PlannedPool, batchers: int = 1) -> dict[str, BatchingSettings]:
    """By model, for the pool's heaviest hour, as its ``tuning`` says.

    Args:
        pool: Which.
        batchers: Queues that part each model's load: as many as replicas where these batch for themselves.
    """
    at_once = _at_once(pool)
    return {
        model.name: _settings(model, pool.tuning, at_once[model.name], _peak(pool, model) / batchers)
        for model in pool.models
    }


def worker_processes(pool: PlannedPool, process_images_per_s: float = PROCESS_IMAGES_PER_S) -> int:
    """Enough for the pictures that a GPU takes at the heaviest hour, at the most that arithmetic allows it."""
    filled = pool.need(pool.peak_hour)
    rate = sum(model.rates[pool.peak_hour] for model in pool.models)
    if not 0 < filled < math.inf:
        return 1
    return min(MOST_WORKER_PROCESSES, max(1, math.ceil(rate / filled / process_images_per_s)))


def _peak(pool: PlannedPool, model: PlannedLoad) -> float:
    return model.rates[pool.peak_hour] or model.peak


def _at_once(pool: PlannedPool) -> dict[str, int]:
    found = {model.name: best(model, _peak(pool, model)) for model in pool.models}
    alone = {name: one.at_once if one else 1 for name, one in found.items()}
    if pool.tuning.instances == "each":
        return alone
    work = {model.name: _peak(pool, model) / one.per_s if (one := found[model.name]) else 0.0 for model in pool.models}
    heaviest = max(work, key=lambda name: work[name])
    scale = alone[heaviest] / work[heaviest] if work[heaviest] else 0.0
    return {name: min(alone[name], max(1, round(scale * part))) for name, part in work.items()}


def _settings(model: PlannedLoad, tuning: Tuning, at_once: int, seen: float) -> BatchingSettings:
    """Bursts fill larger batches than evenly spaced requests do: so the largest measured one that is itself in time."""
    share = at_once / model.costs.speed(at_once)
    fitting = [
        size
        for size in range(1, model.costs.sizes[-1] + 1)
        if model.prepare + model.costs.seconds(size) * share <= model.objective
    ]
    largest = max(fitting, default=1)
    spare = model.objective - model.prepare - model.costs.seconds(largest) * share - WAYS_SECONDS
    delay = min(_GATHERING * (largest - 1) / seen, spare) if seen else 0.0
    if tuning.closing == "objective" or delay <= 0:
        return BatchingSettings(
            max_batch_size=largest, instance_count=at_once, latency_objective_microseconds=round(1e6 * model.objective)
        )
    return BatchingSettings(
        max_batch_size=largest, instance_count=at_once, max_queue_delay_microseconds=math.ceil(1e6 * delay)
    )
