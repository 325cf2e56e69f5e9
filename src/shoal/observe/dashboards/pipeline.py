"""One pipeline: its pictures, what waits for it, its steps. To the batchers it is a model of its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.observe.dashboards.panels import (
    COUNT,
    OF_PIPELINE,
    OF_SERVICE,
    PER_SECOND,
    PIPELINE,
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

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

    from shoal.observe.dashboards.panels import AnyPanel

_AS_MODEL = f'{OF_SERVICE}, model=~"$pipeline"'
_PICTURES = f"shoal_pipeline_pictures_total{{{OF_PIPELINE}"
_CALLS = f"rate(shoal_pipeline_calls_total{{{OF_PIPELINE}"


def pipeline() -> Dashboard:
    """Service and pipeline are chosen at the top."""
    return board(
        "shoal-pipeline",
        "Shoal: one pipeline",
        "One pipeline: its pictures, its queue, its steps.",
        [SERVICE, PIPELINE],
        [("Now", _now()), ("Pictures", _pictures()), ("Steps", _steps())],
    )


def _now() -> list[AnyPanel]:
    boxes = [f"sum(rate(shoal_pipeline_boxes_{part}{{{OF_PIPELINE}}}[{RATE}]))" for part in ("sum", "count")]
    return [
        figure(
            "Pictures",
            PER_SECOND,
            Query(f'sum(rate({_PICTURES}, code="OK"}}[{RATE}]))', "pictures"),
            text="Answered OK.",
        ),
        figure(
            "Refused",
            SHARE,
            Query(f"max(shoal:model_refused:ratio_rate1m{{{_AS_MODEL}}})", "refused"),
            text="Pictures refused because of overload.",
            limits=Limits(0.001, 0.01),
        ),
        figure(
            "p99",
            SECONDS,
            Query(f"max(shoal:model_latency_seconds:p99_5m{{{_AS_MODEL}}})", "p99"),
            text="From arrival in the batcher to the whole answer.",
        ),
        figure(
            "In flight",
            COUNT,
            Query(f"sum(shoal_pipeline_in_flight{{{OF_PIPELINE}}})", "in flight"),
            text="Pictures that are being looked at.",
        ),
        figure(
            "Waiting",
            COUNT,
            Query(f"sum(shoal_batcher_queue_depth{{{_AS_MODEL}}})", "waiting"),
            text="Pictures in the pipeline's queue.",
        ),
        figure("Boxes", COUNT, Query(" / ".join(boxes), "boxes"), text="Kept of the first step's, mean a picture."),
    ]


def _pictures() -> list[AnyPanel]:
    return [
        lines(
            "Pictures by status",
            PER_SECOND,
            Query(
                f"sum by (code) (rate(shoal_batcher_requests_total{{{_AS_MODEL}}}[{RATE}])) > 0",
                "{{code}}",
            ),
            text="gRPC status codes of whole answers. RESOURCE_EXHAUSTED and DEADLINE_EXCEEDED: refused, mostly.",
            stacked=True,
        ),
        lines(
            "Time of a picture",
            SECONDS,
            *quantiles("shoal_pipeline_picture_seconds", OF_PIPELINE, 0.5, 0.9, 0.99),
            *quantiles("shoal_batcher_queue_seconds", _AS_MODEL, 0.5, 0.99, name="wait "),
            text="In the pipeline's process, all steps; and the wait for it before.",
        ),
        lines(
            "Pictures waiting and in flight",
            COUNT,
            Query(f"sum(shoal_batcher_queue_depth{{{_AS_MODEL}}})", "waiting"),
            Query(f"sum(shoal_pipeline_in_flight{{{OF_PIPELINE}}})", "in flight"),
            text="Waiting ones cost nothing yet: more come than the models behind it can do.",
        ),
    ]


def _steps() -> list[AnyPanel]:
    by_step = f"sum by (step, le) (rate(shoal_pipeline_step_seconds_bucket{{{OF_PIPELINE}}}[{RATE}]))"
    return [
        lines(
            "Time of a step",
            SECONDS,
            Query(f"histogram_quantile(0.5, {by_step})", "{{step}} p50"),
            Query(f"histogram_quantile(0.95, {by_step})", "{{step}} p95"),
            text="From a step's first call for a picture to its last answer. Deadlines are met by the p95 of late.",
            width=6,
        ),
        lines(
            "Calls by step",
            PER_SECOND,
            Query(f"sum by (step) ({_CALLS}}}[{RATE}]))", "{{step}}"),
            text="One for each part of a picture.",
            width=6,
            stacked=True,
        ),
        lines(
            "Calls that failed",
            PER_SECOND,
            Query(f'sum by (step, code) ({_CALLS}, code!="OK"}}[{RATE}])) > 0', "{{step}} {{code}}"),
            text="By gRPC status code; such a part of a picture has its own error in the answer.",
            width=6,
            stacked=True,
        ),
        lines(
            "Parts without a call",
            PER_SECOND,
            Query(
                f"sum by (step) (rate(shoal_pipeline_parts_not_asked_total{{{OF_PIPELINE}}}[{RATE}]))",
                "{{step}}",
            ),
            text="No time was left for them. Many: deadlines are too short, or a step's model is too slow.",
            width=6,
            stacked=True,
        ),
    ]
