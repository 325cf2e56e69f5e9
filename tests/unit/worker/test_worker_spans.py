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
        made.span = kept.tracing.begin("worker", SAMPLED, now)
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


def test_a_batch_of_which_nothing_is_traced_has_no_span() -> None:
    silent = stages(None, monotonic())
    with spans.execution(pictures(silent), monotonic()):
        pass
    spans.end(silent)
    assert silent.batch_span is None
