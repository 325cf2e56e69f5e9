from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from opentelemetry import trace

from shoal.client import trace_context

if TYPE_CHECKING:
    import pytest


def test_the_running_span_is_told() -> None:
    context = trace.SpanContext(0xABC, 0x12, is_remote=False, trace_flags=trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(context)):
        assert trace_context.current() == f"00-{0xABC:032x}-{0x12:016x}-01"
    assert trace_context.current() == ""


def test_a_program_without_opentelemetry_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    assert trace_context.current() == ""
    assert "opentelemetry.trace" not in sys.modules
