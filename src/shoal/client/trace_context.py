"""The span that a call is made in, where the program that calls uses OpenTelemetry."""

from __future__ import annotations

import sys

HEADER = "traceparent"
"""https://www.w3.org/TR/trace-context/#traceparent-header"""


def current() -> str:
    """The running span's ``traceparent``; empty where there is none. Nothing is imported for it."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
