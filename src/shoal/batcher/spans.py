"""A request's spans in the batcher: of all its time here, and of the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.observe.tracing import is_sampled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoal.batcher.request import Request
    from shoal.observe.tracing import Told, Tracing


def begin(tracing: Tracing, requests: Iterable[Request]) -> None:
    """Of those that are traced; what their workers do comes below."""
    for request in requests:
        if is_sampled(request.traceparent):
            request.span = tracing.begin("batcher", request.traceparent, request.arrived)
            request.traceparent = request.span.traceparent


def end(requests: Iterable[Request]) -> None:
    """They have ended."""
    for request in requests:
        if request.span is not None:
            request.span.stage("queue", request.arrived, request.sent or request.ended)
            request.span.end(request.ended, request.code, request.text, _told(request))


def _told(request: Request) -> Told:
    method, model = request.called
    batch = request.batch
    return {
        "method": method,
        "model": model,
        "key_id": request.key_id,
        "priority": request.priority.value,
        "queued_ahead": request.ahead,
        "broken_streams": request.attempts,
        "batch.size": batch.size if batch else 0,
        "batch.closed_because": batch.reason if batch else "",
    }
