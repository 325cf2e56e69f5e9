"""Spans of pictures and of the batches that they run in, from the times of ``Stages``."""

from __future__ import annotations

from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from shoal.errors import Code, to_status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shoal.observe.tracing import Told
    from shoal.worker.picture import Picture
    from shoal.worker.stages import Stages


@contextmanager
def execution(pictures: Sequence[Picture], asked: float) -> Iterator[None]:
    """The engine runs ``pictures`` together, which those of them that are traced lead to."""
    traced = [picture.stages for picture in pictures if picture.stages.span is not None]
    if not traced:
        yield
        return
    spans = [stages.span for stages in traced if stages.span is not None]
    span = spans[0].tracing.begin_linked("batch", spans, asked)
    for stages in traced:
        stages.batch_span = span
    told: Told = {"model": traced[0].model, "batch.size": len(pictures)}
    try:
        yield
    except BaseException as error:
        code, text = to_status(error) if isinstance(error, Exception) else (Code.CANCELLED, "the batch was given up")
        span.end(monotonic(), code, text, told)
        raise
    span.end(monotonic(), Code.OK, "", told)


def end(stages: Stages) -> None:
    """The picture's answer is sent."""
    span = stages.span
    if span is None:
        return
    stages.span = None
    if stages.fetched:
        span.stage("fetch", stages.arrived, stages.fetched)
    if stages.looked_up:
        span.stage("lookup", stages.fetched, stages.looked_up)
    if stages.decoded and not stages.on_device:
        span.stage("decode", stages.decoding, stages.decoded)
    if stages.computed:
        span.stage("engine", stages.started, stages.computed, stages.batch_span)
    told: Told = {
        "model": stages.model,
        "model_version": stages.version,
        "image_uuid": stages.image_uuid,
        "key_id": stages.key_id,
        "batch.size": stages.size,
        "executions": stages.executions,
        **({"result_cache": stages.result_cache} if stages.result_cache else {}),
    }
    span.end(stages.left, stages.code, stages.text, told)
