"""The plan as a service file, which ``shoal up`` and ``helm template`` take as it is."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from shoal.plan.trial import settings
from shoal.service import spec

if TYPE_CHECKING:
    from shoal.plan.bound import PlannedLoad
    from shoal.plan.placements import PlannedPool
    from shoal.plan.planning import Entry, Plan
    from shoal.plan.trial import Trial


_STORE = "http://object-store.example:9000"


def service_file(plan: Plan, entry: Entry) -> str:
    """The text, checked.

    Args:
        plan: What was planned.
        entry: One whose ``needed`` is known, balanced by permits: Shoal has no other.
    """
    trial = entry.surviving or entry.needed
    assert trial is not None
    pools, models = {}, {}
    for pool in entry.placement.pools:
        pools[pool.name] = {
            "engine": "triton",
            "models": [model.name for model in pool.models],
            "replicas": trial.gpus[pool.name],
        }
        models.update({model.name: _model(model, pool) for model in pool.models})
    tree: dict[str, Any] = {"pools": pools, "models": models, "kubernetes": _kubernetes(plan)}
    text = io.StringIO()
    writer = YAML()
    writer.width = 120
    writer.dump(tree, text)
    whole = f"{_head(plan, trial)}{text.getvalue()}"
    spec.parse(whole, "the planned service file")
    return whole


def _model(model: PlannedLoad, pool: PlannedPool) -> dict[str, Any]:
    """A batcher of its own, so that its queue and process are apart."""
    chosen = settings(model, model.rates[pool.peak_hour] or model.peak)
    return {
        "batchers": 1,
        "max_batch_size": chosen.max_batch_size,
        "instance_count": chosen.instance_count,
        "latency_objective_ms": round(1000 * model.objective, 3),
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
    )
