"""What Prometheus has to know of a service that runs on this machine: whom to ask, and what to call them.

The labels are those that the chart's PodMonitors set in a cluster, so that the same rules and dashboards fit both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from shoal.observe.foreign import FOREIGN, Origin

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoal.local.state import PartState, ServiceState

LOCAL: Final = "local"
"""The label ``service`` of what ``shoal up`` runs."""
ROUTER_METRICS: Final = "|".join(
    f"{name}(_bucket|_sum|_count)?" for name, it in FOREIGN.items() if it.origin is Origin.ENVOY
)
"""A pattern of those of Envoy's metrics that are used; of the others there are a thousand series a router."""
_GROUP_LABELS: Final = {"batcher": "batcher", "worker": "pool", "triton": "pool"}


def configuration(service: ServiceState, interval_seconds: float, rule_files: Iterable[str]) -> dict[str, Any]:
    """A ``prometheus.yml`` (https://prometheus.io/docs/prometheus/latest/configuration/configuration/).

    Args:
        service: What runs.
        interval_seconds: Between two scrapes of a part, and between two evaluations of the rules.
        rule_files: Names of files, relative to the configuration's own folder.
    """
    interval = f"{max(1, round(interval_seconds * 1000))}ms"
    return {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": list(rule_files),
        "scrape_configs": [_job(part, part.metrics) for part in service.parts if part.metrics],
    }


def _job(part: PartState, metrics: str) -> dict[str, Any]:
    """A part of its own, since parts differ in path."""
    url = urlsplit(metrics)
    labels = {"service": LOCAL, "component": part.role, "instance": part.name}
    if part.role in _GROUP_LABELS:
        labels[_GROUP_LABELS[part.role]] = part.group
    job: dict[str, Any] = {
        "job_name": part.name,
        "metrics_path": url.path,
        "static_configs": [{"targets": [url.netloc], "labels": labels}],
    }
    if part.role == "router":
        keep = {"source_labels": ["__name__"], "regex": ROUTER_METRICS, "action": "keep"}
        job["metric_relabel_configs"] = [keep]
    return job
