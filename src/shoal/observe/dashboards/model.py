"""One model: its requests, its queue and batches, its stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.observe.dashboards.panels import (
    BYTES,
    COUNT,
    MODEL,
    OF_MODEL,
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
from shoal.observe.foreign import TRITON

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

    from shoal.observe.dashboards.panels import AnyPanel


def model() -> Dashboard:
    """Service and model are chosen at the top."""
    return board(
        "shoal-model",
        "Shoal: one model",
        "One model: requests, queue, batches, stages.",
        [SERVICE, MODEL],
        [
            ("Now", _now()),
            ("Requests", _requests()),
            ("Queue and batches", _batches()),
            ("Stages", _stages()),
            ("Result cache, where the model has one", _result_cache()),
        ],
    )


def _quantiles(histogram: str) -> list[Query]:
    return quantiles(histogram, OF_MODEL, 0.5, 0.9, 0.99)


def _mean(histogram: str) -> str:
    return f"sum(rate({histogram}_sum{{{OF_MODEL}}}[{RATE}])) / sum(rate({histogram}_count{{{OF_MODEL}}}[{RATE}]))"


def _now() -> list[AnyPanel]:
    return [
        figure(
            "Answers",
            PER_SECOND,
            Query(f'sum(rate(shoal_batcher_requests_total{{{OF_MODEL}, code="OK"}}[{RATE}]))', "answers"),
            text="Requests answered OK.",
        ),
        figure(
            "Refused",
            SHARE,
            Query(f"max(shoal:model_refused:ratio_rate1m{{{OF_MODEL}}})", "refused"),
            text="Requests refused because of overload.",
            limits=Limits(0.001, 0.01),
        ),
        figure(
            "p99",
            SECONDS,
            Query(f"max(shoal:model_latency_seconds:p99_5m{{{OF_MODEL}}})", "p99"),
            text="From arrival in the batcher to the answer.",
        ),
        figure(
            "Mean batch",
            COUNT,
            Query(_mean("shoal_batcher_batch_size"), "requests"),
            text="Requests in a batch when it closes.",
        ),
        figure(
            "Batches filled to",
            SHARE,
            Query(f"max(shoal:model_batch_fill:ratio_5m{{{OF_MODEL}}})", "filled"),
            text="Mean executed batch, to the largest that the model takes.",
        ),
        figure(
            "Slots asked for",
            SHARE,
            Query(f"max(shoal:model_slot_demand:ratio{{{OF_MODEL}}})", "slots"),
            text="Slots in use and those that the queue would take, to those there are.",
            limits=Limits(0.7, 0.9),
        ),
    ]


def _requests() -> list[AnyPanel]:
    return [
        lines(
            "Requests by status",
            PER_SECOND,
            Query(f"sum by (code) (rate(shoal_batcher_requests_total{{{OF_MODEL}}}[{RATE}])) > 0", "{{code}}"),
            text="gRPC status codes.",
            stacked=True,
        ),
        lines(
            "Latency of answers",
            SECONDS,
            *quantiles("shoal_batcher_request_seconds", f'{OF_MODEL}, priority!="bulk"', 0.5, 0.9, 0.99),
            *quantiles("shoal_batcher_request_seconds", f'{OF_MODEL}, priority="bulk"', 0.5, name="bulk "),
            text="From arrival in the batcher to the answer; bulk requests by themselves.",
        ),
        lines(
            "Wait for a worker",
            SECONDS,
            *quantiles("shoal_batcher_queue_seconds", f'{OF_MODEL}, priority!="bulk"', 0.5, 0.9, 0.99),
            *quantiles("shoal_batcher_queue_seconds", f'{OF_MODEL}, priority="bulk"', 0.5, name="bulk "),
            text="From arrival to dispatch: near 0 while there are free slots; bulk requests by themselves.",
        ),
    ]


def _batches() -> list[AnyPanel]:
    return [
        lines(
            "Requests waiting and at work",
            COUNT,
            Query(f"sum(shoal_batcher_queue_depth{{{OF_MODEL}}})", "queued"),
            Query(f"sum(shoal_batcher_in_flight{{{OF_MODEL}}})", "at a worker"),
            text="Now. What is queued grows when slots run out.",
            width=6,
        ),
        lines(
            "Slots",
            COUNT,
            Query(f"sum(rate(shoal_worker_permit_seconds_total{{{OF_MODEL}}}[{RATE}]))", "in use"),
            Query(f"sum(shoal_worker_permit_limit{{{OF_MODEL}}})", "there are"),
            text="Batches at the workers, averaged, against those that they take at once.",
            width=6,
        ),
        lines(
            "Batch size",
            COUNT,
            Query(_mean("shoal_batcher_batch_size"), "closed"),
            Query(_mean("shoal_worker_batch_size"), "executed"),
            Query(f"max(shoal_worker_batch_limit{{{OF_MODEL}}})", "largest"),
            text="Means. Executed is smaller where pictures of a batch failed, hung or had a known answer, and larger "
            "where requests ask about several regions.",
            width=6,
        ),
        lines(
            "Batches by what closed them",
            PER_SECOND,
            Query(f"sum by (reason) (rate(shoal_batcher_batches_closed_total{{{OF_MODEL}}}[{RATE}]))", "{{reason}}"),
            text="preferred: full. delay: waited long enough. deadline: a request couldn't wait longer.",
            width=6,
            stacked=True,
        ),
    ]


def _result_cache() -> list[AnyPanel]:
    lookups = f"rate(shoal_worker_result_cache_lookups_total{{{OF_MODEL}"
    return [
        lines(
            "Lookups",
            PER_SECOND,
            Query(f"sum by (outcome) ({lookups}}}[{RATE}]))", "{{outcome}}"),
            text="Pictures and regions. hit: answered again; miss: computed.",
            width=6,
            stacked=True,
        ),
        lines(
            "Share of hits",
            SHARE,
            Query(f'sum({lookups}, outcome="hit"}}[{RATE}])) / sum({lookups}}}[{RATE}]))', "hits"),
            text="Near 0 for days: switch it off, it only hashes.",
            width=6,
            most=1,
        ),
        lines(
            "Memory",
            BYTES,
            Query(f"sum by (instance) (shoal_worker_result_cache_bytes{{{OF_MODEL}}})", "{{instance}}"),
            text="Of each worker's answers; cache_max_bytes bounds it.",
            width=6,
        ),
        lines(
            "Evictions",
            PER_SECOND,
            Query(
                f"sum by (reason) (rate(shoal_worker_result_cache_evictions_total{{{OF_MODEL}}}[{RATE}]))",
                "{{reason}}",
            ),
            text="room: a larger cache_max_bytes would keep them longer. expired: cache_seconds are over.",
            width=6,
            stacked=True,
        ),
    ]


def _stages() -> list[AnyPanel]:
    return [
        lines("Fetch", SECONDS, *_quantiles("shoal_worker_fetch_seconds"), text="One picture.", width=6),
        lines("Decode", SECONDS, *_quantiles("shoal_worker_decode_seconds"), text="One picture.", width=6),
        lines(
            "Wait for an instance",
            SECONDS,
            *_quantiles("shoal_worker_queue_seconds"),
            text="A ready batch's.",
            width=6,
        ),
        lines("Compute", SECONDS, *_quantiles("shoal_worker_compute_seconds"), text="One batch.", width=6),
        lines(
            "Decoded, by way",
            PER_SECOND,
            Query(f"sum by (way) (rate(shoal_worker_decodes_total{{{OF_MODEL}}}[{RATE}]))", "{{way}}"),
            text="device: by a model that decodes itself. cpu: by the worker.",
            stacked=True,
        ),
        lines(
            "Decode on the device",
            SECONDS,
            *_quantiles("shoal_worker_device_decode_seconds"),
            text="All JPEGs of one batch.",
        ),
        lines(
            "Streams",
            COUNT,
            Query(f"sum by (state) (shoal_batcher_streams{{{OF_MODEL}}})", "{{state}}"),
            text="Batching streams by what they do. No permitted ones: every slot is taken.",
            stacked=True,
        ),
        lines(
            "Sent again",
            PER_SECOND,
            Query(f"sum(rate(shoal_batcher_resent_total{{{OF_MODEL}}}[{RATE}]))", "requests"),
            text="Requests whose worker went away under them.",
        ),
        lines(
            "Triton's own time, mean a batch",
            SECONDS,
            *(
                Query(
                    f"sum(rate(nv_inference_{stage}_duration_us{{{OF_MODEL}, {TRITON}}}[{RATE}])) / 1e6 "
                    f"/ sum(rate(nv_inference_exec_count{{{OF_MODEL}, {TRITON}}}[{RATE}]))",
                    stage.replace("_", " "),
                )
                for stage in ("queue", "compute_input", "compute_infer", "compute_output")
            ),
            text="Where the pool's engine is Triton.",
            stacked=True,
        ),
    ]
