"""Where each container of a pod listens; the chart's templates have these numbers from its ``defaults.json``."""

from __future__ import annotations

from typing import Final

PORTS: Final = {
    "router": 8080,
    "balancer": 9001,
    "batcher": 9000,
    "worker": 9000,
    "pipeline": 9000,
    "more_workers": 9200,
    "more_workers_metrics": 9300,
    "triton": 8001,
    "metrics": 9100,
    "config_health": 9101,
    "sync_health": 9102,
    "sync_metrics": 9103,
    "triton_metrics": 8002,
}
"""Container ports. ``balancer`` is where batchers open their streams; ``metrics`` is the same in router, batcher,
worker and pipeline. Those of one pod differ, for its containers share an address. A worker's process n, from the second
on, is at ``more_workers`` + n, and its metrics at ``more_workers_metrics`` + n."""
