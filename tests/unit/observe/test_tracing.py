from __future__ import annotations

import socket
import sys
from time import monotonic, time_ns

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from shoal.errors import Code, ConfigurationError
from shoal.observe import tracing
from shoal.observe.tracing import Tracing, is_sampled
from support.kept_spans import SAMPLED as PARENT
from support.kept_spans import KeptSpans


@pytest.fixture
def kept() -> KeptSpans:
    return KeptSpans()


@pytest.mark.parametrize(
    ("traceparent", "sampled"),
    [("", False), (PARENT, True), (PARENT[:-2] + "00", False), (PARENT[:-2] + "03", True), (PARENT[:-2] + "fe", False)],
)
def test_the_flag_of_the_traceparent_decides(traceparent: str, sampled: bool) -> None:
    assert is_sampled(traceparent) == sampled


def test_a_span_is_below_the_one_that_the_traceparent_names(kept: KeptSpans) -> None:
    before, now = time_ns(), monotonic()
    span = kept.tracing.begin("worker", PARENT, now)
    assert span.traceparent[:36] == PARENT[:36]
    assert span.traceparent[36:] != PARENT[36:]
    assert is_sampled(span.traceparent)
    span.stage("fetch", now + 1, now + 3)
    span.stage("decode", now + 3, now + 2)  # never ends before it began
    span.end(now + 4, Code.NOT_FOUND, "no such image", {"model": "yolo", "size": 0, "nothing": ""})
    fetch, decode, worker = kept.all
    assert worker.parent
    assert worker.context
    assert (worker.parent.span_id, worker.parent.is_remote) == (0xB7AD6B7169203331, True)
    assert worker.kind is SpanKind.SERVER
    assert fetch.parent == decode.parent == worker.context
    times = [(span.start_time or 0, span.end_time or 0) for span in (worker, fetch, decode)]
    start = times[0][0]
    told = [(round((began - start) / 1e9), round((ended - start) / 1e9)) for began, ended in times]
    assert told == [(0, 4), (1, 3), (3, 3)]
    assert before <= start + 1_000_000
    assert dict(worker.attributes or {}) == {"shoal.model": "yolo", "shoal.size": 0, "rpc.grpc.status_code": 5}
    assert (worker.status.status_code, worker.status.description) == (StatusCode.ERROR, "NOT_FOUND: no such image")


def test_what_is_done_for_several_leads_to_each_and_is_in_a_trace_of_its_own(
    kept: KeptSpans,
) -> None:
    spans = [kept.tracing.begin("worker", PARENT.replace("0af7", f"{number}af7"), 1.0) for number in (1, 2)]
    batch = kept.tracing.begin_linked("batch", spans, 2.0)
    spans[0].stage("engine", 2.0, 3.0, batch)
    batch.end(3.0, Code.OK, "", {"batch.size": 2})
    engine, done = kept.all
    assert done.parent is None
    assert [link.context for link in done.links] == [span.link.context for span in spans]
    assert [link.context for link in engine.links] == [done.context]
    assert done.status.status_code is StatusCode.UNSET


async def test_a_collector_that_takes_nothing_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_EXPORT_SECONDS", 0.2)
    monkeypatch.setattr(tracing, "MAX_QUEUED_SPANS", 600)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        made = Tracing.to(f"http://127.0.0.1:{deaf.getsockname()[1]}", "worker", "one")
        for _ in range(700):  # those over it are dropped
            made.begin("worker", PARENT, 1.0).end(2.0, Code.OK, "", {})
        await made.close()


def test_without_the_packages_the_error_says_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'shoal\[tracing\]'"):
        Tracing.to("http://127.0.0.1:1", "worker", "one")
