"""The recorded signals: each thing that dashboards, alerts and autoscaling look at, defined once.

Levels: a model, a pool of workers, a group of batchers, the router. Windows are a minute for what scales, five minutes
for what alerts. What would be 0/0 has no value.
"""

from __future__ import annotations

from shoal.observe.foreign import ROUTER, TRITON
from shoal.observe.rules import Recording

REFUSED = "RESOURCE_EXHAUSTED"
LATE = "DEADLINE_EXCEEDED"
FAILED = "UNKNOWN|INTERNAL|UNAVAILABLE|DATA_LOSS"
"""gRPC codes that are the service's fault, whatever the load."""
BAD = f"{FAILED}|{REFUSED}|{LATE}"
"""What counts against the objective; wrong input and callers that leave don't."""
OBJECTIVE = 0.999
"""Share of requests that are to end otherwise than ``BAD``, over 30 days."""
BURN_WINDOWS = ("5m", "30m", "1h", "6h")

_REQUESTS = "shoal_batcher_requests_total"
_URGENT = '{priority!="bulk"}'
"""Bulk requests are there to wait: they say nothing about how long anybody has to. An older batcher tells none."""
_MODEL = "(service, model)"
_SERVED = "(service, pool, model)"
_POOL = "(service, pool)"
_BATCHERS = "(service, batcher)"
_PUBLIC = f'{ROUTER},envoy_http_conn_manager_prefix="public"'


def _share(codes: str, window: str) -> str:
    """PromQL: the share that ended with ``codes`` of the requests whose callers stayed."""
    return _ratio(
        f'sum by {_MODEL} (rate({_REQUESTS}{{code=~"{codes}"}}[{window}]))',
        f'sum by {_MODEL} (rate({_REQUESTS}{{code!="CANCELLED"}}[{window}]))',
    )


def _ratio(numerator: str, denominator: str) -> str:
    return f"{numerator} / ({denominator} > 0)"


def _quantile(share: float, histogram: str, window: str, labels: str, of: str = "") -> str:
    """PromQL: the ``share`` quantile of a histogram, of its series ``of``; no value where nothing was observed."""
    rates = f"sum by ({labels}, le) (rate({histogram}_bucket{of}[{window}]))"
    return f"histogram_quantile({share:g}, {rates}) >= 0"


def _named(kind: str, series: str) -> str:
    """Series of Envoy's clusters of pools or of batchers, with the label ``pool`` or ``batcher``."""
    return f'label_replace({series}, "{kind}", "$1", "envoy_cluster_name", "{kind}/(.+)")'


def _hosts(kind: str, metric: str) -> str:
    """A pool's workers or a group's batchers as the router sees them; of several routers the one that sees fewest."""
    hosts = f'{metric}{{{ROUTER},envoy_cluster_name=~"{kind}/.+"}}'
    return f"min by (service, {kind}) ({_named(kind, hosts)})"


def _router_ended(matchers: str = "") -> str:
    """A second's calls and streams of calls for a group of batchers that ended, in five minutes."""
    kinds = "(?:batcher|streams)/"
    ended = f'rate(envoy_cluster_upstream_rq_xx{{{ROUTER},envoy_cluster_name=~"{kinds}.+"{matchers}}}[5m])'
    return f'sum by {_BATCHERS} (label_replace({ended}, "batcher", "$1", "envoy_cluster_name", "{kinds}(.+)"))'


_QUEUED_SLOTS = (
    f"sum by {_MODEL} (avg_over_time(shoal_batcher_queue_depth[1m])) / on {_MODEL} group_right () "
    f"(sum by {_SERVED} (shoal_worker_permit_limit * shoal_worker_batch_limit) > 0)"
)
"""Slots that full batches of what is queued would take, to those there are."""

REQUESTS = (
    Recording("shoal:model_refused:ratio_rate1m", _share(REFUSED, "1m")),
    Recording("shoal:model_failed:ratio_rate5m", _share(FAILED, "5m")),
    Recording("shoal:model_late:ratio_rate5m", _share(LATE, "5m")),
    *(Recording(f"shoal:model_bad:ratio_rate{window}", _share(BAD, window)) for window in BURN_WINDOWS),
    Recording(
        "shoal:model_latency_seconds:p99_5m",
        _quantile(0.99, "shoal_batcher_request_seconds", "5m", "service, model", _URGENT),
    ),
    Recording(
        "shoal:model_queue_seconds:p90_1m",
        _quantile(0.9, "shoal_batcher_queue_seconds", "1m", "service, model", _URGENT),
    ),
)

LOAD = (
    Recording(
        "shoal:model_slot_use:ratio",
        _ratio(
            f"sum by {_SERVED} (rate(shoal_worker_permit_seconds_total[1m]))",
            f"sum by {_SERVED} (shoal_worker_permit_limit)",
        ),
    ),
    Recording(
        "shoal:model_slot_demand:ratio",
        f"shoal:model_slot_use:ratio + on {_SERVED} ({_QUEUED_SLOTS} or on {_SERVED} 0 * shoal:model_slot_use:ratio)",
    ),
    Recording("shoal:pool_slot_use:ratio", f"max by {_POOL} (shoal:model_slot_use:ratio)"),
    Recording("shoal:pool_slot_demand:ratio", f"max by {_POOL} (shoal:model_slot_demand:ratio)"),
    Recording(
        "shoal:pool_queue_seconds:p90_1m",
        f"max by {_POOL} (shoal:model_queue_seconds:p90_1m * on {_MODEL} group_right () "
        f"group by {_SERVED} (shoal_worker_permit_limit > 0))",
    ),
    Recording(
        "shoal:pool_instance_use:ratio",
        f"max by {_POOL} ("
        + _ratio(
            f"sum by {_SERVED} (rate(shoal_worker_compute_seconds_sum[1m]))",
            f"sum by {_SERVED} (shoal_worker_instances)",
        )
        + ")",
    ),
    Recording(
        "shoal:pool_decode_use:ratio",
        f"sum by {_POOL} (rate(shoal_worker_decode_seconds_sum[1m])) / sum by {_POOL} (shoal_worker_decode_threads)",
    ),
    Recording(
        "shoal:model_batch_fill:ratio_5m",
        _ratio(
            f"sum by {_SERVED} (rate(shoal_worker_batch_size_sum[5m]))",
            f"sum by {_SERVED} (rate(shoal_worker_batch_size_count[5m]))",
        )
        + f" / on {_SERVED} max by {_SERVED} (shoal_worker_batch_limit > 0)",
    ),
    Recording("shoal:batchers_requests:rate1m", f"sum by {_BATCHERS} (rate({_REQUESTS}[1m]))"),
    Recording("shoal:router_calls:rate1m", f"sum by (service) (rate(envoy_http_downstream_rq_total{{{_PUBLIC}}}[1m]))"),
)

PARTS = (
    Recording("shoal:pool_fetch_seconds:p90_5m", _quantile(0.9, "shoal_worker_fetch_seconds", "5m", "service, pool")),
    Recording(
        "shoal:pool_fetch_failed:ratio_rate5m",
        _ratio(
            f'sum by {_POOL} (rate(shoal_worker_fetches_total{{code=~"UNAVAILABLE|INTERNAL"}}[5m]))',
            f"sum by {_POOL} (rate(shoal_worker_fetches_total[5m]))",
        ),
    ),
    Recording("shoal:pool_workers_healthy:count", _hosts("pool", "envoy_cluster_membership_healthy")),
    Recording("shoal:pool_workers_known:count", _hosts("pool", "envoy_cluster_membership_total")),
    Recording("shoal:batchers_healthy:count", _hosts("batcher", "envoy_cluster_membership_healthy")),
    Recording(
        "shoal:routers_up:count",
        f'sum by (service) (up{{{ROUTER}}}) or on (service) 0 * group by (service) (up{{component=~"batcher|worker"}})',
    ),
    Recording(
        "shoal:router_failed:ratio_rate5m",
        # Envoy has no series of a class before the first call that ended so.
        _ratio(
            f"""({_router_ended(',envoy_response_code_class="5"')} or on {_BATCHERS} 0 * {_router_ended()})""",
            _router_ended(),
        ),
    ),
    Recording("shoal:pool_gpu_utilization:ratio", f"avg by {_POOL} (nv_gpu_utilization{{{TRITON}}})"),
)
