"""One pool of workers, with a GPU each where Triton runs the models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.observe.dashboards.panels import (
    BYTES,
    COUNT,
    OF_POOL,
    OF_TRITON,
    PER_SECOND,
    POOL,
    RATE,
    SECONDS,
    SERVICE,
    SHARE,
    WATTS,
    Limits,
    Query,
    board,
    figure,
    lines,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

    from shoal.observe.dashboards.panels import AnyPanel


def pool() -> Dashboard:
    """Service and pool are chosen at the top."""
    return board(
        "shoal-pool",
        "Shoal: one GPU pool",
        "One pool: its workers, their slots, instances, CPU and GPUs.",
        [SERVICE, POOL],
        [
            ("Now", _now()),
            ("Saturation", _saturation()),
            ("Workers", _workers()),
            ("GPU and Triton, where the engine is Triton", _gpu()),
        ],
    )


def _now() -> list[AnyPanel]:
    return [
        figure(
            "Workers taking batches",
            COUNT,
            Query(f"sum(shoal:pool_workers_healthy:count{{{OF_POOL}}})", "healthy"),
            text="As the router sees them; a worker of several processes counts as so many.",
            limits=Limits(1, 0),
        ),
        figure(
            "Pictures",
            PER_SECOND,
            Query(f'sum(rate(shoal_worker_requests_total{{{OF_POOL}, code="OK"}}[{RATE}]))', "pictures"),
            text="Answered OK.",
        ),
        figure(
            "Slots asked for",
            SHARE,
            Query(f"max(shoal:pool_slot_demand:ratio{{{OF_POOL}}})", "slots"),
            text="Of the fullest model.",
            limits=Limits(0.7, 0.9),
        ),
        figure(
            "Wait for a worker, p90",
            SECONDS,
            Query(f"max(shoal:pool_queue_seconds:p90_1m{{{OF_POOL}}})", "p90"),
            text="Of the slowest model.",
        ),
        figure(
            "Instances busy",
            SHARE,
            Query(f"max(shoal:pool_instance_use:ratio{{{OF_POOL}}})", "busy"),
            text="Of the busiest model.",
        ),
        figure(
            "GPU busy",
            SHARE,
            Query(f"avg(shoal:pool_gpu_utilization:ratio{{{OF_POOL}}})", "busy"),
            text="Where Triton has a GPU.",
        ),
    ]


def _saturation() -> list[AnyPanel]:
    return [
        lines(
            "Slots",
            SHARE,
            Query(f"shoal:model_slot_demand:ratio{{{OF_POOL}}}", "asked for {{model}}"),
            Query(f"shoal:model_slot_use:ratio{{{OF_POOL}}}", "in use {{model}}"),
            text="In use: averaged over a minute. Asked for: and what the queue would take.",
            limits=Limits(0.7, 0.9),
        ),
        lines(
            "Busy: instances, decoding",
            SHARE,
            Query(f"shoal:pool_instance_use:ratio{{{OF_POOL}}}", "instances"),
            Query(f"shoal:pool_decode_use:ratio{{{OF_POOL}}}", "decoding threads"),
            text="The one near 100 % is what bounds the pool.",
            most=1,
        ),
        lines(
            "Wait for an instance, p90",
            SECONDS,
            Query(
                "histogram_quantile(0.9, "
                f"sum by (model, le) (rate(shoal_worker_queue_seconds_bucket{{{OF_POOL}}}[{RATE}])))",
                "{{model}}",
            ),
            text="A ready batch's. Long: the engine is the bottleneck; 0: what comes before it is.",
        ),
    ]


def _workers() -> list[AnyPanel]:
    return [
        lines(
            "Pictures by worker",
            PER_SECOND,
            Query(f"sum by (instance) (rate(shoal_worker_requests_total{{{OF_POOL}}}[{RATE}]))", "{{instance}}"),
            text="Equal workers should get equal shares.",
            width=6,
        ),
        lines(
            "Batches in flight by worker",
            COUNT,
            Query(f"sum by (instance) (shoal_worker_batches_in_flight{{{OF_POOL}}})", "{{instance}}"),
            text="Permits in use, now.",
            width=6,
        ),
        lines(
            "CPU by worker",
            COUNT,
            Query(
                f'sum by (instance) (rate(process_cpu_seconds_total{{{OF_POOL}, component="worker"}}[{RATE}]))',
                "{{instance}}",
            ),
            text="Cores: decoding, and the model itself where the engine is OpenVINO.",
            width=6,
        ),
        lines(
            "Memory by worker",
            BYTES,
            Query(f'process_resident_memory_bytes{{{OF_POOL}, component="worker"}}', "{{instance}}"),
            text="Of the worker's process; Triton's is its own.",
            width=6,
        ),
    ]


def _gpu() -> list[AnyPanel]:
    return [
        lines(
            "GPU busy",
            SHARE,
            Query(f"nv_gpu_utilization{{{OF_TRITON}}}", "{{instance}}"),
            text="Idle while slots are full: decoding or fetching is too slow, or there are too few instances.",
            width=6,
            most=1,
        ),
        lines(
            "GPU memory",
            BYTES,
            Query(f"nv_gpu_memory_used_bytes{{{OF_TRITON}}}", "used {{instance}}"),
            Query(f"nv_gpu_memory_total_bytes{{{OF_TRITON}}}", "there is {{instance}}"),
            text="Room for more instances or models.",
            width=6,
        ),
        lines(
            "GPU power",
            WATTS,
            Query(f"nv_gpu_power_usage{{{OF_TRITON}}}", "{{instance}}"),
            text="Low while busy: small batches.",
            width=6,
        ),
        lines(
            "Triton: pictures and batches",
            PER_SECOND,
            Query(f"sum(rate(nv_inference_count{{{OF_TRITON}}}[{RATE}]))", "pictures"),
            Query(f"sum(rate(nv_inference_exec_count{{{OF_TRITON}}}[{RATE}]))", "batches"),
            Query(f"sum(nv_inference_pending_request_count{{{OF_TRITON}}})", "batches waiting"),
            text="Their ratio is the mean batch. Waiting ones: Triton is behind.",
            width=6,
        ),
    ]
