from __future__ import annotations

from time import monotonic
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from shoal.errors import Code, Unavailable
from shoal.runtime.priority import Priority
from shoal.worker import spans
from shoal.worker.stages import Stages
from support.kept_spans import SAMPLED, KeptSpans

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


def stages(kept: KeptSpans | None, now: float, **times: Any) -> Stages:
    made = Stages("uuid", "key-1", "m", 2, Priority.INTERACTIVE, (0, 0), now, **times)
    if kept is not None:
        spans.follow(kept.tracing.begin("worker", SAMPLED, now), (made,))
    return made


def regions(kept: KeptSpans, now: float, *times: dict[str, Any]) -> list[Stages]:
    """Of one request."""
    made = [stages(None, now, **each) for each in times]
    spans.follow(kept.tracing.begin("worker", SAMPLED, now), made)
    return made


def pictures(*all_stages: Stages) -> Any:
    return [SimpleNamespace(stages=each) for each in all_stages]


def milliseconds(span: ReadableSpan, since: ReadableSpan) -> tuple[int, int]:
    began = since.start_time or 0
    return round(((span.start_time or 0) - began) / 1e6), round(((span.end_time or 0) - began) / 1e6)


def test_a_picture_has_spans_of_its_stages() -> None:
    kept, now = KeptSpans(), monotonic()
    one = stages(kept, now, fetched=now + 0.1, decoding=now + 0.2, decoded=now + 0.3)
    with spans.execution(pictures(one), now + 0.4):
        one.started, one.computed = now + 0.5, now + 0.6
    one.ask(now + 0.4, 1)
    one.end(Code.OK, "", now + 0.7)
    one.left = now + 0.8
    spans.end(one)
    spans.end(one)  # a second time it is none
    batch, fetch, decode, engine, whole = kept.all
    names = [(span.name, milliseconds(span, whole)) for span in (fetch, decode, engine, whole)]
    assert names == [("fetch", (0, 100)), ("decode", (200, 300)), ("engine", (500, 600)), ("worker", (0, 800))]
    assert [link.context for link in engine.links] == [batch.context]
    assert [link.context for link in batch.links] == [whole.context]
    assert (whole.attributes or {})["shoal.image_uuid"] == "uuid"


def test_one_that_was_looked_up_says_so() -> None:
    kept, now = KeptSpans(), monotonic()
    one = stages(kept, now, fetched=now + 0.1, left=now + 0.3)
    one.look_up(now + 0.2, found=True)
    spans.end(one)
    assert [(span.name, milliseconds(span, kept.all[-1])) for span in kept.all[:2]] == [
        ("fetch", (0, 100)),
        ("lookup", (100, 200)),
    ]
    assert (kept.all[-1].attributes or {})["shoal.result_cache"] == "hit"


def test_what_a_device_decoded_is_a_part_of_the_engine() -> None:
    kept, now = KeptSpans(), monotonic()
    spans.end(stages(kept, now, fetched=now, decoding=now, decoded=now, computed=now, on_device=True, left=now))
    assert [span.name for span in kept.all] == ["fetch", "engine", "worker"]


def test_one_that_never_came_has_no_stage() -> None:
    kept, now = KeptSpans(), monotonic()
    lost = stages(kept, now, left=now + 1)
    lost.end(Code.NOT_FOUND, "no such image", now)
    spans.end(lost)
    (whole,) = kept.all
    assert whole.status.description == "NOT_FOUND: no such image"


def test_a_batch_leads_to_those_that_are_traced_and_counts_all() -> None:
    kept, now = KeptSpans(), monotonic()
    one, silent, two = stages(kept, now), stages(None, now), stages(kept, now)
    with pytest.raises(Unavailable), spans.execution(pictures(one, silent, two), now):
        raise Unavailable("the engine is away")
    (batch,) = kept.all
    assert len(batch.links) == 2
    assert (batch.attributes or {})["shoal.batch.size"] == 3
    assert batch.status.description == "UNAVAILABLE: the engine is away"
    assert silent.batch_span is None


def run(asked: float, started: float, computed: float, *together: Stages) -> None:
    with spans.execution(pictures(*together), asked):
        for one in together:
            one.ask(asked, len(together))
            one.started, one.computed = started, computed


def leave(one: Stages, now: float, code: Code = Code.OK, text: str = "") -> None:
    one.end(code, text, now)
    one.left = now
    spans.end(one)


def test_regions_that_went_through_a_stage_together_have_one_span_of_it() -> None:
    """Five regions: one was known, two run together, one runs behind them, one fails in an execution of its own."""
    kept, now = KeptSpans(), monotonic()
    there = {"fetched": now + 0.1, "looked_up": now + 0.2, "result_cache": "miss"}
    first = there | {"decoding": now + 0.2, "decoded": now + 0.3}
    later = there | {"decoding": now + 0.5, "decoded": now + 0.7}
    known, *two, behind, poisoned = regions(kept, now, there | {"result_cache": "hit"}, first, first, later, later)
    leave(known, now + 0.3)
    run(now + 0.3, now + 0.4, now + 0.5, *two, stages(kept, now))
    for one in two:
        leave(one, now + 0.6)
    run(now + 0.7, now + 0.7, now + 0.8, behind)
    leave(behind, now + 0.9)
    with pytest.raises(Unavailable), spans.execution(pictures(poisoned), now + 0.8):
        raise Unavailable("the engine is away")
    assert not kept.named("worker")
    leave(poisoned, now + 1, Code.UNAVAILABLE, "the engine is away")
    (whole,) = kept.named("worker")
    told = [
        (span.name, milliseconds(span, whole), dict(span.attributes or {}))
        for span in kept.all
        if span.parent and whole.context and span.parent.span_id == whole.context.span_id
    ]
    assert told == [
        ("fetch", (0, 100), {"shoal.regions": 5}),
        ("lookup", (100, 200), {"shoal.regions": 5, "shoal.regions.hit": 1}),
        ("decode", (200, 300), {"shoal.regions": 2}),
        ("decode", (500, 700), {"shoal.regions": 2}),
        ("engine", (400, 500), {"shoal.regions": 2, "shoal.batch.size": 3}),
        ("engine", (700, 800), {"shoal.regions": 1, "shoal.batch.size": 1}),
    ]
    assert milliseconds(whole, whole) == (0, 1000)
    attributes = dict(whole.attributes or {})
    assert (attributes["shoal.regions"], attributes["shoal.regions.failed"]) == (5, 1)
    assert (attributes["shoal.executions"], attributes["shoal.result_cache"]) == (3, "miss")
    assert whole.status.is_ok or whole.status.is_unset
    (event,) = whole.events
    assert (event.name, round((event.timestamp - (whole.start_time or 0)) / 1e6)) == ("region failed", 1000)
    assert event.attributes == {
        "shoal.region": 4,
        "shoal.status": "UNAVAILABLE: the engine is away",
        "rpc.grpc.status_code": 14,
    }
    together, alone, broken = kept.named("batch")
    assert [len(batch.links) for batch in (together, alone, broken)] == [2, 1, 1]  # a request has one, with any rows
    assert {batch.links[0].context.span_id for batch in (together, alone, broken)} == {whole.context.span_id}
    engines = [span.links[0].context for span in kept.named("engine")]
    assert engines == [together.context, alone.context]


def test_what_befell_all_regions_alike_is_the_requests_own_failure() -> None:
    kept, now = KeptSpans(), monotonic()
    for part in regions(kept, now, {}, {}, {}):
        leave(part, now + 1, Code.NOT_FOUND, "no such image")
    (whole,) = kept.all
    assert whole.status.description == "NOT_FOUND: no such image"
    assert (whole.attributes or {})["shoal.regions.failed"] == 3
    assert not whole.events


def test_a_batch_of_which_nothing_is_traced_has_no_span() -> None:
    silent = stages(None, monotonic())
    with spans.execution(pictures(silent), monotonic()):
        pass
    spans.end(silent)
    assert silent.batch_span is None
