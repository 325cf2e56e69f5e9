"""Spans of requests and of the batches that their pictures run in, from the times of ``Stages``."""

from __future__ import annotations

from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Final

from shoal.errors import Code, to_status
from shoal.worker.stages import HIT, MISS, RequestSpan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from shoal.observe.tracing import Span, Told
    from shoal.worker.picture import Picture
    from shoal.worker.stages import Stages

    Times = tuple[float, float]

_STAGES: Final[Mapping[str, Callable[[Stages], Times]]] = {
    "fetch": lambda part: (part.arrived, part.fetched),
    "lookup": lambda part: (part.fetched, part.looked_up),
    "decode": lambda part: (part.decoding, 0.0 if part.on_device else part.decoded),
    "engine": lambda part: (part.started, part.computed),
}
"""When each began and ended; 0: it didn't. Regions of the same times went through it together."""


def follow(span: Span, parts: Sequence[Stages]) -> None:
    """``span`` is that of a request about ``parts``, and ends with the last of them."""
    request = RequestSpan(span, parts)
    for part in parts:
        part.span = request


@contextmanager
def execution(pictures: Sequence[Picture], asked: float) -> Iterator[None]:
    """The engine runs ``pictures`` together, which those requests of them that are traced lead to."""
    traced = [picture.stages for picture in pictures if picture.stages.span is not None]
    if not traced:
        yield
        return
    requests = list(dict.fromkeys(stages.span for stages in traced if stages.span is not None))
    span = requests[0].span.tracing.begin_linked("batch", [request.span for request in requests], asked)
    for request in requests:
        request.executions += 1
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
    """The picture's answer is sent, or a region's is; with the last of them, so is the request's."""
    request = stages.span
    if request is None or not all(part.left for part in request.parts):
        return
    for part in request.parts:
        part.span = None
    for name, times in _STAGES.items():
        _tell_stage(request, name, times)
    failed = [number for number, part in enumerate(request.parts) if part.code is not Code.OK]
    last = max(request.parts, key=lambda part: part.left)
    code, text = last.code, last.text
    if len({(part.code, part.text) for part in request.parts}) > 1:  # each has its own
        code, text = Code.OK, ""
        for number in failed:
            part = request.parts[number]
            request.span.event("region failed", part.ended, part.code, part.text, {"region": number})
    told: Told = {
        "model": stages.model,
        "model_version": stages.version,
        "image_uuid": stages.image_uuid,
        "key_id": stages.key_id,
        "batch.size": last.size,
        "executions": request.executions,
        "result_cache": _result_cache(request),
        **({"regions": len(request.parts), "regions.failed": len(failed)} if len(request.parts) > 1 else {}),
    }
    request.span.end(last.left, code, text, told)


def _tell_stage(request: RequestSpan, name: str, times: Callable[[Stages], Times]) -> None:
    """A span for all regions that went through it together."""
    together: dict[Times, list[Stages]] = {}
    for part in request.parts:
        together.setdefault(times(part), []).append(part)
    for (began, ended), parts in together.items():
        if not ended:
            continue
        told: dict[str, int] = {}
        if len(request.parts) > 1:
            told["regions"] = len(parts)
            if name == "lookup":
                told["regions.hit"] = sum(part.result_cache == HIT for part in parts)
            elif name == "engine":
                told["batch.size"] = parts[0].size
        request.span.stage(name, began, ended, parts[0].batch_span if name == "engine" else None, told)


def _result_cache(request: RequestSpan) -> str:
    """Of several regions: a hit if all are."""
    found = {part.result_cache for part in request.parts}
    return found.pop() if len(found) == 1 else MISS
