"""A plan's figures, ready for JSON: what the table shows and the page draws."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from shoal.plan.tuning import settings, worker_processes

if TYPE_CHECKING:
    from shoal.plan.planning import Entry, Plan
    from shoal.plan.pool import PlannedPool
    from shoal.plan.trial import Trial

FORMAT = "shoal.plan/1"
"""Another number: programs that read the one before can't read it."""


def figures(plan: Plan) -> dict[str, Any]:
    """All of them. Rates are pictures a second, times milliseconds."""
    hardware, price = plan.document.hardware, plan.document.prices.per_gpu_hour
    return {
        "format": FORMAT,
        "models": {
            model.name: {"objective_ms": 1000 * model.objective, "per_s": [round(rate, 3) for rate in model.rates]}
            for model in plan.models
        },
        "hardware": hardware.model_dump(),
        "peak_hour": plan.peak_hour,
        "bound": {
            "by_hour": [round(number, 3) for number in plan.bound_by_hour],
            "dedicated_pools": plan.bound_apart,
            "batching_inside_each_replica": plan.bound_inside,
        },
        "placements": [_entry(entry, price) for entry in plan.entries],
        "chosen": plan.winner and plan.winner.placement.name,
        "runner_up": plan.runner_up and plan.runner_up.placement.name,
        "gpus": plan.gpus,
        "cores_a_gpu": cores_a_gpu(plan),
        "settings": settings_of(plan),
        "worker_processes": processes_of(plan),
        "server_dies": plan.loss and asdict(plan.loss),
    }


def cores_a_gpu(plan: Plan) -> float | None:
    """Cores that the service keeps busy at the peak, over the GPUs of the plan."""
    cost = plan.document.sizing.cores_ms_per_image
    if cost is None or not plan.gpus:
        return None
    at_once = sum(model.rates[plan.peak_hour] for model in plan.models)
    return round(at_once * cost / 1000 / plan.gpus, 1)


def settings_of(plan: Plan) -> dict[str, dict[str, int]]:
    """What the chosen placement serves each model with; without a delay batches close by the objective."""
    return {
        name: {
            "max_batch_size": one.max_batch_size,
            "instance_count": one.instance_count,
            "max_queue_delay_microseconds": one.max_queue_delay_microseconds,
        }
        for pool in _chosen_pools(plan)
        for name, one in settings(pool).items()
    }


def processes_of(plan: Plan) -> dict[str, int]:
    """Worker processes of a GPU, by pool of the chosen placement."""
    carried = plan.document.sizing.process_images_per_s
    return {pool.name: worker_processes(pool, carried) for pool in _chosen_pools(plan)}


def _chosen_pools(plan: Plan) -> tuple[PlannedPool, ...]:
    """As they are served."""
    if plan.winner is None:
        return ()
    trial = plan.winner.surviving or plan.winner.needed
    return plan.winner.placement.pools if trial is None else trial.placement.pools


def _entry(entry: Entry, price: float | None) -> dict[str, Any]:
    trials = {
        "needed": entry.needed,
        "given": entry.given,
        "server_lost": entry.given_lost,
        "surviving": entry.surviving,
    }
    hours = entry.gpu_hours
    return {
        "name": entry.placement.name,
        "pools": {pool.name: [model.name for model in pool.models] for pool in entry.placement.pools},
        "bound": entry.bound,
        **{name: _trial(trial) for name, trial in trials.items()},
        "gpus_by_hour": list(entry.hourly) or None,
        "gpu_hours_a_day": hours,
        "cost_a_day": None if price is None or hours is None else round(price * hours, 2),
    }


def _trial(trial: Trial | None) -> dict[str, Any] | None:
    if trial is None:
        return None
    return {
        "gpus": dict(trial.gpus),
        "tuning": {pool.name: asdict(pool.tuning) for pool in trial.placement.pools},
        "in_time": trial.in_time,
        "utilisation": round(trial.mean_utilisation, 4),
        "models": {
            one.name: {"p99_ms": one.p99_ms, "lost": round(one.lost, 5), "mean_batch": one.mean_batch}
            for one in trial.models
        },
    }
