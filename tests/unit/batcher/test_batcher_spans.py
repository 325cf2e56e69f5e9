"""Spans of requests, through a real dispatcher and a real batching service."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from shoal.batcher.core import open_channel
from shoal.batcher.dispatch import Dispatcher
from shoal.errors import DeadlineExceeded
from shoal.modelconfig.batching import BatchingSettings
from support.kept_spans import SAMPLED, UNSAMPLED, KeptSpans
from support.scripted_batches import ScriptedHandler, scripted_worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

METHOD = "/shoal.v1.Inference/Classify"


@contextlib.asynccontextmanager
async def dispatcher(target: str, kept: KeptSpans | None) -> AsyncIterator[Dispatcher]:
    made = Dispatcher(open_channel(target), "test", tracing=kept.tracing if kept else None)
    try:
        yield made
    finally:
        await made.close()


async def submit(to: Dispatcher, name: str, traceparent: str, timeout: float = 5.0) -> bytes:
    return await to.submit(METHOD, "m", "key-1", name.encode(), timeout, traceparent)


async def test_a_traced_request_has_spans_and_its_worker_continues_them() -> None:
    handler, kept = ScriptedHandler(), KeptSpans()
    handler.go.set()
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target, kept) as batcher:
        await asyncio.gather(
            submit(batcher, "traced", SAMPLED), submit(batcher, "silent", UNSAMPLED), submit(batcher, "plain", "")
        )
    queue, whole = kept.all
    assert (queue.name, whole.name) == ("queue", "batcher")
    assert whole.context
    assert whole.parent
    assert whole.attributes
    assert f"{whole.parent.span_id:016x}" == SAMPLED.split("-")[2]
    assert queue.parent == whole.context
    assert (whole.attributes["shoal.model"], whole.attributes["shoal.method"]) == ("m", METHOD)
    sent = {item.request: item.traceparent for batch in handler.batches for item in batch}
    assert sent[b"traced"] == f"{SAMPLED[:36]}{whole.context.span_id:016x}-01"
    assert (sent[b"silent"], sent[b"plain"]) == (UNSAMPLED, "")


async def test_who_gets_no_answer_has_a_span_that_says_why() -> None:
    handler, kept = ScriptedHandler(BatchingSettings()), KeptSpans()
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target, kept) as batcher:
        with pytest.raises(DeadlineExceeded):
            await submit(batcher, "expires", SAMPLED, timeout=0.2)
        leaving = asyncio.ensure_future(submit(batcher, "leaves", SAMPLED))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        handler.go.set()
    told = [span.status.description or "" for span in kept.named("batcher")]
    assert [text.partition(":")[0] for text in told] == ["DEADLINE_EXCEEDED", "CANCELLED"]


async def test_without_a_collector_the_trace_context_goes_on_as_it_came() -> None:
    handler = ScriptedHandler()
    handler.go.set()
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target, None) as batcher:
        await submit(batcher, "one", SAMPLED)
    assert [item.traceparent for batch in handler.batches for item in batch] == [SAMPLED]
