"""Traces of calls: from a caller's span to the engine, at a real receiver of OTLP, through the whole service."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from opentelemetry import trace
from PIL import Image

from shoal.client import AsyncClient, Client
from support.certificates import self_signed
from support.collector import Collector, Seen, collecting
from support.pictures import encode
from support.ports import free
from support.stack import Stack, running_stack, shoal
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL = "tiny"
TRACE, CALLER = "ab" * 16, "12" * 8
ALL = ("ingress", "batcher", "queue", "worker", "fetch", "decode", "engine")


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


def service(endpoint: str, ratio: float) -> str:
    return f"observe: {{tracing: {{otlp_endpoint: '{endpoint}', sample_ratio: {ratio}}}}}"


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Stack]:
    """Of calls whose caller doesn't say, none is traced."""
    root = tmp_path_factory.mktemp("traces")
    with running_stack(
        root, models=lambda store: add_tiny_classifier(store, MODEL), service=service(collector.endpoint, 0)
    ) as stack:
        yield stack


@pytest.fixture(scope="module")
def uuid(traced: Stack) -> str:
    return upload(traced)


def upload(stack: Stack) -> str:
    with Client(stack.target, api_key=stack.api_key) as client:
        return client.upload(encode(Image.new("RGB", (64, 64), (250, 0, 0))))


def classify(stack: Stack, uuid: str, traceparent: str = "", model: str = MODEL) -> int:
    headers = {"content-type": "application/json", "x-api-key": stack.api_key}
    headers |= {"traceparent": traceparent} if traceparent else {}
    url, body = f"http://{stack.target}/v1/models/{model}:classify", json.dumps({"image_uuid": uuid}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_one_trace_from_the_callers_span_to_the_engine(traced: Stack, collector: Collector, uuid: str) -> None:
    assert classify(traced, uuid, f"00-{TRACE}-{CALLER}-01") == 200
    # Envoy sends five spans together, or what there is after five seconds.
    found = collector.trace(TRACE, *ALL)
    assert {name: span.service for name, span in found.items()} == dict(
        zip(ALL, ["shoal-router", *["shoal-batcher"] * 2, *["shoal-worker"] * 4], strict=True)
    )
    above = {"batcher": "ingress", "queue": "batcher", "worker": "batcher"} | dict.fromkeys(ALL[4:], "worker")
    assert found["ingress"].parent == CALLER
    assert {name: found[name].parent for name in above} == {name: found[one].span for name, one in above.items()}
    for name, one in above.items():
        within(found[name], found[one])
    assert found["queue"].ended <= found["worker"].began
    assert found["fetch"].ended <= found["decode"].began < found["decode"].ended <= found["engine"].began
    assert (found["worker"].told["shoal.image_uuid"], found["batcher"].told["shoal.model"]) == (uuid, MODEL)
    assert found["ingress"].told["shoal.key_id"] == found["worker"].told["shoal.key_id"]
    assert not any(traced.api_key in str(span) for span in collector.spans)


def within(inner: Seen, outer: Seen) -> None:
    """All parts are on one host, whose clocks are read a moment apart."""
    aside = 1_000_000
    assert outer.began - aside <= inner.began <= inner.ended <= outer.ended + aside, (inner, outer)


async def test_calls_of_a_stream_lead_to_their_batch_and_it_to_them(
    traced: Stack, collector: Collector, uuid: str
) -> None:
    traces = [f"{number:032x}" for number in range(1, 9)]
    async with AsyncClient(traced.target, api_key=traced.api_key, streams=True) as client:

        async def call(one: str) -> None:
            context = trace.SpanContext(int(one, 16), 7, is_remote=False, trace_flags=trace.TraceFlags(1))
            with trace.use_span(trace.NonRecordingSpan(context)):
                await client.classify(uuid, MODEL)

        await asyncio.gather(*map(call, traces))
    for one in traces:
        found = collector.trace(one, "batcher", "worker", "engine")
        assert found["batcher"].parent == f"{7:016x}"
        (link,) = found["engine"].links
        batch = collector.span(*link)
        assert (batch.name, batch.parent) == ("batch", "")
        assert (one, found["worker"].span) in batch.links
        assert int(batch.told["shoal.batch.size"]) == len(batch.links) == int(found["worker"].told["shoal.batch.size"])
        within(found["engine"], batch)


async def test_a_request_about_several_regions_has_one_span_of_what_they_went_through_together(
    traced: Stack, collector: Collector, uuid: str
) -> None:
    """Ten regions of a model whose batches are of four."""
    one = "fedcba98" * 4
    context = trace.SpanContext(int(one, 16), 7, is_remote=False, trace_flags=trace.TraceFlags(1))
    async with AsyncClient(traced.target, api_key=traced.api_key) as client:
        with trace.use_span(trace.NonRecordingSpan(context)):
            found = await client.classify(uuid, MODEL, regions=[(0, 0, 0.5, 0.1 * number) for number in range(1, 11)])
    assert all(part.error is None for part in found.parts)
    (worker,) = named(collector.until(lambda spans: bool(named(spans, one, "worker"))), one, "worker")
    assert (worker.told["shoal.regions"], worker.told["shoal.regions.failed"]) == ("10", "0")

    def regions(name: str) -> list[int]:
        return [int(span.told["shoal.regions"]) for span in named(collector.spans, one, name)]

    assert regions("fetch") == [10]
    assert sum(regions("decode")) == sum(regions("engine")) == 10
    engines = named(collector.spans, one, "engine")
    assert len(engines) == int(worker.told["shoal.executions"])
    for engine in engines:
        ((link),) = engine.links
        batch = collector.span(*link)
        assert batch.links == ((one, worker.span),)
        assert batch.told["shoal.batch.size"] == engine.told["shoal.regions"] == engine.told["shoal.batch.size"]
        within(engine, worker)


def named(spans: list[Seen], trace: str, name: str) -> list[Seen]:
    return [span for span in spans if (span.trace, span.name) == (trace, name)]


def test_a_call_that_isnt_sampled_has_no_spans(traced: Stack, collector: Collector, uuid: str) -> None:
    silent = "cd" * 16
    assert classify(traced, uuid, f"00-{silent}-{CALLER}-00") == 200
    assert classify(traced, uuid) == 200
    last = "ef" * 16
    assert classify(traced, uuid, f"00-{last}-{CALLER}-01") == 200
    collector.trace(last, *ALL)
    # Of calls that nobody said anything about there are no roots but those of batches.
    assert not [span for span in collector.spans if span.trace == silent or (not span.parent and span.name != "batch")]


def test_a_failure_is_told_where_it_happened(traced: Stack, collector: Collector) -> None:
    lost = "0123456789abcdef" * 2
    assert classify(traced, "6ba7b810-9dad-41d1-80b4-00c04fd430c8", f"00-{lost}-{CALLER}-01") == 404
    found = collector.trace(lost, "batcher", "worker")
    for part in ("batcher", "worker"):
        assert found[part].error.startswith("NOT_FOUND: ")
        assert found[part].told["rpc.grpc.status_code"] == "5"


def test_without_a_collector_all_is_as_ever_and_one_that_comes_gets_spans(tmp_path: Path) -> None:
    port = free().port
    with running_stack(
        tmp_path, models=lambda store: add_tiny_classifier(store, MODEL), service=service(f"http://127.0.0.1:{port}", 1)
    ) as stack:
        uuid = upload(stack)
        assert [classify(stack, uuid) for _ in range(20)] == [200] * 20
        with collecting(port) as late:
            stop = threading.Event()
            calls = threading.Thread(target=lambda: [classify(stack, uuid) for _ in iter(stop.is_set, True)])
            calls.start()
            try:
                seen = late.until(lambda spans: {span.service for span in spans} >= set(SERVICES))
            finally:
                stop.set()
                calls.join()
        assert {span.service for span in seen} == set(SERVICES)


SERVICES = ("shoal-router", "shoal-batcher", "shoal-worker")


HEADERS = "authorization=Bearer%20a%2Cb%3D%3D, X-Team = one"
SENT = (("authorization", "Bearer a,b=="), ("x-team", "one"))


def test_a_collector_behind_tls_that_wants_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As hosted ones do; all parts go by OpenTelemetry's own variables."""
    certificate = self_signed()
    certificate.write(tmp_path / "tls")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "tls" / "tls.crt"))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", HEADERS)
    with (
        collecting(certificate=certificate) as collector,
        running_stack(
            tmp_path / "home",
            models=lambda store: add_tiny_classifier(store, MODEL),
            service=service(collector.endpoint, 0),
        ) as stack,
    ):
        assert classify(stack, upload(stack), f"00-{TRACE}-{CALLER}-01") == 200
        collector.trace(TRACE, *ALL)
        assert collector.metadata == {(f"shoal-{part}", SENT) for part in ("router", "batcher", "worker")}
        shown = shoal(tmp_path / "home", "render", "envoy", "--topology", stack.home.run / "topology.json")
        assert "a,b==" not in shown.stdout
        logs = "".join(path.read_text() for path in stack.home.logs.iterdir())
        assert "a,b==" not in logs
