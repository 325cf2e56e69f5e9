"""The plan as a service file, which ``shoal up`` and ``helm template`` take as it is."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from shoal.plan.tuning import settings, worker_processes
from shoal.service import spec

if TYPE_CHECKING:
    from shoal.modelconfig.batching import BatchingSettings
    from shoal.plan.planning import Entry, Plan
    from shoal.plan.pool import PlannedPool
    from shoal.plan.trial import Trial


_STORE = "http://object-store.example:9000"
_VARIES = 2
"""Different numbers of GPUs in a day."""


def service_file(plan: Plan, entry: Entry) -> str:
    """The text, checked.

    Args:
        plan: What was planned.
        entry: One whose ``needed`` is known, balanced by permits: Shoal has no other.
    """
    trial = entry.surviving or entry.needed
    assert trial is not None
    pools, models = {}, {}
    for pool in trial.placement.pools:
        pools[pool.name] = _pool(pool, trial.gpus[pool.name], plan.document.sizing.process_images_per_s)
        objectives = {model.name: model.objective for model in pool.models}
        models.update({name: _model(one, objectives[name]) for name, one in settings(pool).items()})
    tree: dict[str, Any] = {"pools": pools, "models": models, "kubernetes": _kubernetes(plan)}
    text = io.StringIO()
    writer = YAML()
    writer.width = 120
    writer.dump(tree, text)
    whole = f"{_head(plan, trial)}{text.getvalue()}"
    spec.parse(whole, "the planned service file")
    return whole


def _pool(pool: PlannedPool, replicas: int, process_images_per_s: float) -> dict[str, Any]:
    """Its pictures in memory are shared by its processes, each of which has to hold the largest one."""
    processes = worker_processes(pool, process_images_per_s)
    made = {
        "engine": "triton",
        "models": [model.name for model in pool.models],
        "replicas": replicas,
        "worker_processes": processes,
    }
    least = processes * spec.ObjectStore().max_image_bytes
    return made | ({"max_fetched_bytes": least} if least > spec.Pool().max_fetched_bytes else {})


def _model(chosen: BatchingSettings, objective: float) -> dict[str, Any]:
    """A batcher of its own, so that its queue and process are apart."""
    delay = chosen.max_queue_delay_microseconds
    closing = {"max_queue_delay_microseconds": delay} if delay else {"latency_objective_ms": round(1000 * objective, 3)}
    return {
        "batchers": 1,
        "max_batch_size": chosen.max_batch_size,
        "instance_count": chosen.instance_count,
        **closing,
    }


def _kubernetes(plan: Plan) -> dict[str, Any]:
    """A GPU a worker, and as many workers on a server as it has GPUs: never one more, for which there is no GPU."""
    hardware = plan.document.hardware
    return {
        "object_store": {"endpoint": _STORE},
        "model_store": {"image": True},
        "worker": {
            "gpus": 1,
            "max_unavailable": hardware.gpus_per_server,
            "rolling_update": {"maxSurge": 0, "maxUnavailable": hardware.gpus_per_server},
        },
    }


def _head(plan: Plan, trial: Trial) -> str:
    objectives = ", ".join(f"{model.name} {1000 * model.objective:g} ms" for model in plan.models)
    return (
        f"# Written by shoal plan: {trial.total} GPUs, the loss of one server at the peak included.\n"
        f"# 99 of 100 requests within: {objectives}. Calculated with the service's own batching policy, not measured.\n"
        "# For a cluster, name your stores and Secrets: docs/deploy.md.\n"
        f"{_by_hour(plan, trial)}"
    )


def _by_hour(plan: Plan, trial: Trial) -> str:
    """The day's numbers as a comment: they need KEDA, and a Prometheus whose address isn't known here."""
    hourly = next((entry.hourly for entry in plan.entries if entry.hourly), ())
    if len(trial.gpus) != 1 or len(set(hourly)) < _VARIES:
        return ""
    [pool] = trial.gpus
    spare = trial.total - max(hourly)
    numbers = [number + spare for number in hourly]
    return (
        "# By the hour, with the reserve of the peak, where KEDA scales: docs/metrics.md. schedule.timezone says\n"
        "# whose hours these are, UTC if it is left out. Under kubernetes:\n"
        "#   autoscaling:\n"
        "#     prometheus_url: http://prometheus.example:9090\n"
        "#     pools:\n"
        f"#       {pool}: {{min_replicas: {min(numbers)}, max_replicas: {max(numbers)}, schedule: {{replicas_by_hour: "
        f"{numbers}}}}}\n"
    )
