"""The service at a glance: does it keep its objective, is it near its limits, what takes the time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.observe.dashboards.panels import (
    COUNT,
    OF_ROUTER,
    OF_SERVICE,
    PER_SECOND,
    RATE,
    SECONDS,
    SERVICE,
    SHARE,
    Limits,
    Query,
    board,
    figure,
    lines,
    quantiles,
)
from shoal.observe.foreign import PARTS
from shoal.observe.recording import BAD, OBJECTIVE

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

    from shoal.observe.dashboards.panels import AnyPanel

_REQUESTS = f"shoal_batcher_requests_total{{{OF_SERVICE}"
_PUBLIC = f'{OF_ROUTER}, envoy_http_conn_manager_prefix="public"'
_STAGES = {
    "wait for a worker": "shoal_batcher_queue_seconds",
    "fetch": "shoal_worker_fetch_seconds",
    "decode": "shoal_worker_decode_seconds",
    "wait for an instance": "shoal_worker_queue_seconds",
    "compute": "shoal_worker_compute_seconds",
}


def overview() -> Dashboard:
    """Which service it is about is chosen at the top."""
    return board(
        "shoal-overview",
        "Shoal: overview",
        "One service: objective, load, saturation and its parts.",
        [SERVICE],
        [
            ("Is it well?", _well()),
            ("Requests", _requests()),
            ("Saturation: what is full first", _saturation()),
            ("Time and parts", _parts()),
        ],
    )


def _well() -> list[AnyPanel]:
    good = f'1 - sum(rate({_REQUESTS}, code=~"{BAD}"}}[1h])) / sum(rate({_REQUESTS}, code!="CANCELLED"}}[1h]))'
    return [
        figure(
            "Ended well, last hour",
            SHARE,
            Query(good, "ended well"),
            text=f"Requests that were neither refused nor late nor failed. The objective is {OBJECTIVE:.1%}.",
            limits=Limits(OBJECTIVE, 1 - 10 * (1 - OBJECTIVE)),
        ),
        figure(
            "Requests",
            PER_SECOND,
            Query(f"sum(rate({_REQUESTS}}}[{RATE}]))", "requests"),
            text="Of all models, whatever became of them.",
        ),
        figure(
            "p99",
            SECONDS,
            Query(f"max(shoal:model_latency_seconds:p99_5m{{{OF_SERVICE}}})", "p99"),
            text="From arrival in the batcher to the answer, of the slowest model.",
        ),
        figure(
            "Slots asked for",
            SHARE,
            Query(f"max(shoal:pool_slot_demand:ratio{{{OF_SERVICE}}})", "slots"),
            text="Of the fullest pool: slots in use and those that the queue would take, to those there are.",
            limits=Limits(0.7, 0.9),
        ),
        figure(
            "Workers taking batches",
            SHARE,
            Query(
                f"sum(shoal:pool_workers_healthy:count{{{OF_SERVICE}}}) "
                f"/ sum(shoal:pool_workers_known:count{{{OF_SERVICE}}})",
                "healthy",
            ),
            text="As the router sees them.",
            limits=Limits(1, 0.5),
        ),
        figure(
            "Parts away",
            COUNT,
            Query(f"count(up{{{OF_SERVICE}, {PARTS}}} == 0) or vector(0)", "away"),
            text="Parts that don't answer Prometheus.",
            limits=Limits(1, 2),
        ),
    ]


def _requests() -> list[AnyPanel]:
    return [
        lines(
            "Requests by status",
            PER_SECOND,
            Query(f"sum by (code) (rate({_REQUESTS}}}[{RATE}])) > 0", "{{code}}"),
            text="gRPC status codes. RESOURCE_EXHAUSTED: refused, the queue is full or the deadline can't be met.",
            stacked=True,
        ),
        lines(
            "Latency of answers",
            SECONDS,
            *quantiles("shoal_batcher_request_seconds", OF_SERVICE, 0.5, 0.9, 0.99),
            text="From arrival in the batcher to the answer, of all models.",
        ),
        lines(
            "Refused, late, failed",
            SHARE,
            Query(f"shoal:model_refused:ratio_rate1m{{{OF_SERVICE}}}", "refused {{model}}"),
            Query(f"shoal:model_late:ratio_rate5m{{{OF_SERVICE}}}", "late {{model}}"),
            Query(f"shoal:model_failed:ratio_rate5m{{{OF_SERVICE}}}", "failed {{model}}"),
            Query(f"shoal:router_failed:ratio_rate5m{{{OF_SERVICE}}}", "failed at the router, for {{batcher}}"),
            text="Shares of a model's requests. Refused: overload. Late: the deadline passed. Failed: our fault. "
            "At the router: of the calls for a group of batchers, when none takes them.",
        ),
    ]


def _saturation() -> list[AnyPanel]:
    return [
        lines(
            "Slots asked for, by pool",
            SHARE,
            Query(f"shoal:pool_slot_demand:ratio{{{OF_SERVICE}}}", "asked for {{pool}}"),
            Query(f"shoal:pool_slot_use:ratio{{{OF_SERVICE}}}", "in use {{pool}}"),
            text="Asked for is what autoscaling follows: in use, and what the queue would take. Over 100 %: too few.",
            limits=Limits(0.7, 0.9),
            width=6,
        ),
        lines(
            "Wait for a worker, p90",
            SECONDS,
            Query(f"shoal:model_queue_seconds:p90_1m{{{OF_SERVICE}}}", "{{model}}"),
            text="Near 0 while there are free slots; grows before anything is refused.",
            width=6,
        ),
        lines(
            "Queued requests",
            COUNT,
            Query(f"sum by (model) (shoal_batcher_queue_depth{{{OF_SERVICE}}})", "{{model}}"),
            text="Waiting for a worker, now.",
            width=6,
        ),
        lines(
            "Instances, decoding, GPU",
            SHARE,
            Query(f"shoal:pool_instance_use:ratio{{{OF_SERVICE}}}", "instances {{pool}}"),
            Query(f"shoal:pool_decode_use:ratio{{{OF_SERVICE}}}", "decoding {{pool}}"),
            Query(f"shoal:pool_gpu_utilization:ratio{{{OF_SERVICE}}}", "GPU {{pool}}"),
            text="Busy share of what a worker has: the one near 100 % is the bottleneck. GPU: where Triton has one.",
            width=6,
            most=1,
        ),
    ]


def _parts() -> list[AnyPanel]:
    return [
        lines(
            "Where the time goes, mean",
            SECONDS,
            *(
                Query(
                    f"sum(rate({metric}_sum{{{OF_SERVICE}}}[{RATE}])) "
                    f"/ sum(rate({metric}_count{{{OF_SERVICE}}}[{RATE}]))",
                    stage,
                )
                for stage, metric in _STAGES.items()
            ),
            text="Of a request, or of its batch. Fetching and decoding overlap the wait for company.",
            stacked=True,
            width=6,
        ),
        lines(
            "Seen at the router",
            SECONDS,
            *quantiles("envoy_http_downstream_rq_time", _PUBLIC, 0.5, 0.99, scale=" / 1000"),
            text="A call's first byte to its last, uploads included. Far over the batcher's: the router lacks CPU.",
            width=6,
        ),
        lines(
            "CPU by part",
            COUNT,
            Query(
                f"sum by (component) (rate(process_cpu_seconds_total{{{OF_SERVICE}, {PARTS}}}[{RATE}]))",
                "{{component}}",
            ),
            text="Cores in use by Shoal's own processes; the router is Envoy and doesn't say.",
            width=6,
        ),
        lines(
            "Calls at the router",
            COUNT,
            Query(
                f"sum(envoy_http_downstream_rq_active{{{_PUBLIC}}})",
                "calls in flight",
            ),
            Query(
                f"sum(envoy_http_downstream_cx_active{{{_PUBLIC}}})",
                "connections",
            ),
            text="router.max_requests and router.max_connections bound them.",
            width=6,
        ),
    ]
