"""Metrics of Triton's and Envoy's that dashboards and rules use: the last table of docs/reference/metrics.md.

Triton's: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/metrics.md. Envoy's are the
statistics of its connection managers and clusters under their Prometheus names
(https://www.envoyproxy.io/docs/envoy/latest/configuration/upstream/cluster_manager/cluster_stats).
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple


class Origin(StrEnum):
    """Who exports a metric, and what has to be there for it."""

    ENVOY = "Envoy"
    TRITON = "Triton"
    GPU = "Triton with a GPU"
    PROMETHEUS = "Prometheus"
    PROCESS = "each of Shoal's processes"


class Foreign(NamedTuple):
    """A metric of somebody else's."""

    origin: Origin
    kind: str
    labels: tuple[str, ...]
    """Those that are used."""
    text: str


ROUTER = 'component="router"'
TRITON = 'component="triton"'
PARTS = 'component=~"router|batcher|worker|triton|model-sync"'
"""Which targets a metric is read of: other services under the same Prometheus have an Envoy and a Triton, too."""

_MANAGER = ("envoy_http_conn_manager_prefix",)
_CLUSTER = ("envoy_cluster_name",)
_MODEL = ("model", "version")
_GPU = ("gpu_uuid",)

FOREIGN = {
    "up": Foreign(Origin.PROMETHEUS, "gauge", (), "1 if the last scrape of the part succeeded."),
    "process_cpu_seconds_total": Foreign(Origin.PROCESS, "counter", (), "CPU time of the process."),
    "process_resident_memory_bytes": Foreign(Origin.PROCESS, "gauge", (), "Memory of the process."),
    "envoy_http_downstream_rq_total": Foreign(
        Origin.ENVOY, "counter", _MANAGER, "Calls that came in; `public`: from clients, `balancer`: batching streams."
    ),
    "envoy_http_downstream_rq_active": Foreign(Origin.ENVOY, "gauge", _MANAGER, "Calls in flight, now."),
    "envoy_http_downstream_cx_active": Foreign(Origin.ENVOY, "gauge", _MANAGER, "Open connections, now."),
    "envoy_http_downstream_cx_rx_bytes_total": Foreign(Origin.ENVOY, "counter", _MANAGER, "Bytes received."),
    "envoy_http_downstream_cx_tx_bytes_total": Foreign(Origin.ENVOY, "counter", _MANAGER, "Bytes sent."),
    "envoy_http_downstream_rq_time": Foreign(
        Origin.ENVOY,
        "histogram, milliseconds",
        _MANAGER,
        "From a call's first byte at the router to its last byte back.",
    ),
    "envoy_cluster_membership_healthy": Foreign(
        Origin.ENVOY, "gauge", _CLUSTER, "Hosts that take calls, now; `pool/NAME`: workers, `batcher/NAME`: batchers."
    ),
    "envoy_cluster_membership_total": Foreign(Origin.ENVOY, "gauge", _CLUSTER, "Hosts known, now."),
    "envoy_cluster_upstream_rq_pending_overflow": Foreign(
        Origin.ENVOY,
        "counter",
        _CLUSTER,
        "Calls refused because `router.max_requests` are in flight, or 1,000 streams of calls (`streams/NAME`).",
    ),
    "envoy_cluster_upstream_rq_xx": Foreign(
        Origin.ENVOY,
        "counter",
        (*_CLUSTER, "envoy_response_code_class"),
        "Calls that ended, by class of HTTP status; `5`: the router itself answered, with UNAVAILABLE since no batcher "
        "took the call, or because it is full.",
    ),
    "nv_inference_count": Foreign(Origin.TRITON, "counter", _MODEL, "Pictures inferred."),
    "nv_inference_exec_count": Foreign(Origin.TRITON, "counter", _MODEL, "Batches executed."),
    "nv_inference_pending_request_count": Foreign(Origin.TRITON, "gauge", _MODEL, "Batches that wait in Triton, now."),
    "nv_inference_queue_duration_us": Foreign(
        Origin.TRITON, "counter", _MODEL, "Microseconds that batches waited in Triton's queue."
    ),
    "nv_inference_compute_input_duration_us": Foreign(
        Origin.TRITON, "counter", _MODEL, "Microseconds that were spent on inputs: copies to the GPU."
    ),
    "nv_inference_compute_infer_duration_us": Foreign(
        Origin.TRITON, "counter", _MODEL, "Microseconds that the model ran."
    ),
    "nv_inference_compute_output_duration_us": Foreign(
        Origin.TRITON, "counter", _MODEL, "Microseconds that were spent on outputs."
    ),
    "nv_gpu_utilization": Foreign(Origin.GPU, "gauge", _GPU, "Share of time in which the GPU had work, 0 to 1."),
    "nv_gpu_memory_used_bytes": Foreign(Origin.GPU, "gauge", _GPU, "GPU memory in use."),
    "nv_gpu_memory_total_bytes": Foreign(Origin.GPU, "gauge", _GPU, "GPU memory there is."),
    "nv_gpu_power_usage": Foreign(Origin.GPU, "gauge", _GPU, "Watts."),
}

_WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_HISTOGRAM_PARTS = re.compile(r"_(bucket|sum|count)$")


def used(expression: str) -> set[str]:
    """Names of ``FOREIGN`` that a PromQL expression reads; a histogram's parts count as the histogram."""
    words = set(_WORD.findall(re.sub(r'"[^"]*"', "", expression)))
    return FOREIGN.keys() & (words | {_HISTOGRAM_PARTS.sub("", word) for word in words})
