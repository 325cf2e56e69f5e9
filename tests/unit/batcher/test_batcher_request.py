"""What a batcher tells of its recent requests, through a real dispatcher and a real batching service."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import uuid
from typing import TYPE_CHECKING

import pytest

from shoal.batcher.core import open_channel
from shoal.batcher.dispatch import Dispatcher
from shoal.batcher.request import SLICE_BYTES, explain
from shoal.batching.v1 import batching_pb2
from shoal.errors import Code, DeadlineExceeded, NotFound, Overloaded
from shoal.modelconfig.batching import BatchingSettings
from support.scripted_batches import SETTINGS, ScriptedHandler, scripted_worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shoal.explain.views import BatcherVisit

METHOD = "/shoal.v1.Inference/Classify"
SECRET = "secret-of-somebody"


@contextlib.asynccontextmanager
async def dispatcher(target: str, remembered: int = 10) -> AsyncIterator[Dispatcher]:
    made = Dispatcher(open_channel(target), "test", remembered)
    try:
        yield made
    finally:
        await made.close()


async def submit(to: Dispatcher, name: str, timeout: float = 5.0) -> bytes:
    return await to.submit(METHOD, "m", "key-1", f"{SECRET} {name}".encode(), timeout)


def told(by: Dispatcher, name: str) -> BatcherVisit:
    (visit,) = explain(by.recent, name).batcher
    assert SECRET not in visit.model_dump_json()
    assert sum(visit.stage_seconds.values()) == pytest.approx(visit.total_seconds)
    return visit


@pytest.fixture
def name() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def handler() -> ScriptedHandler:
    made = ScriptedHandler()
    made.go.set()
    return made


async def test_an_answered_one_tells_its_batch_and_what_its_worker_was_told(
    handler: ScriptedHandler, name: str
) -> None:
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        await asyncio.gather(*(submit(batcher, name if n == 2 else "other") for n in range(4)))
        visit = told(batcher, name)
    assert (visit.method, visit.model, visit.key_id, visit.code) == (METHOD, "m", "key-1", "OK")
    assert list(visit.stage_seconds) == ["permit", "open", "closed"]
    assert visit.batch is not None
    assert (visit.batch.size, visit.batch.closed_because) == (len(handler.batches[0]), "preferred")
    assert visit.batch.max_batch_size == SETTINGS.max_batch_size
    (item,) = (item for batch in handler.batches for item in batch if name.encode() in item.request)
    assert visit.sent_as == (item.queued_us, item.timeout_us)
    assert visit.timeout_seconds == pytest.approx(5.0)


async def test_one_that_waits_for_a_permit_is_told_as_waiting(name: str) -> None:
    handler = ScriptedHandler(BatchingSettings())
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        busy = [asyncio.ensure_future(submit(batcher, "busy")) for _ in range(2)]
        for _ in busy:
            await handler.arrived.get()
        waits = [asyncio.ensure_future(submit(batcher, each)) for each in ("first", name)]
        await asyncio.sleep(0)
        visit = told(batcher, name)
        assert (visit.code, visit.batch, visit.sent_as) == ("", None, None)
        assert list(visit.stage_seconds) == ["permit"]
        assert visit.queued_ahead == 1
        handler.go.set()
        await asyncio.gather(*busy, *waits)
        assert told(batcher, name).code == "OK"


async def test_one_in_an_open_batch_is_told_so(handler: ScriptedHandler, name: str) -> None:
    handler.settings = BatchingSettings(max_batch_size=4, max_queue_delay_microseconds=10_000_000)
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        await asyncio.gather(*(submit(batcher, "the settings are known now") for _ in range(4)))
        for _ in range(4):
            await handler.arrived.get()
        call = asyncio.ensure_future(submit(batcher, name))
        await handler.arrived.get()
        visit = told(batcher, name)
        assert visit.batch is not None
        assert (visit.batch.size, visit.batch.closed_because) == (1, "")
        assert list(visit.stage_seconds) == ["permit", "open"]
        batcher.drain()
        await call
        drained = told(batcher, name)
    assert drained.batch is not None
    assert drained.batch.closed_because == "drain"


async def test_a_refusal_an_expiry_and_a_caller_that_left_are_told(name: str) -> None:
    handler = ScriptedHandler(BatchingSettings(max_queue_size=1))
    handler.go.set()
    expires, leaves, refused = name, str(uuid.uuid4()), str(uuid.uuid4())
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        await submit(batcher, "the settings are known now")
        await handler.arrived.get()
        handler.go.clear()
        busy = [asyncio.ensure_future(submit(batcher, "busy")) for _ in range(2)]
        for _ in busy:
            await handler.arrived.get()
        with pytest.raises(DeadlineExceeded):
            await submit(batcher, expires, timeout=0.3)
        leaving = asyncio.ensure_future(submit(batcher, leaves))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await submit(batcher, refused)
        leaving.cancel()
        await asyncio.wait([leaving])
        visits = [told(batcher, each) for each in (expires, leaves, refused)]
        handler.go.set()
        await asyncio.gather(*busy)
    assert [visit.code for visit in visits] == ["DEADLINE_EXCEEDED", "CANCELLED", "RESOURCE_EXHAUSTED"]
    assert "queue is full" in visits[2].message
    assert all(list(visit.stage_seconds) == ["permit"] for visit in visits)


async def test_an_error_of_the_worker_is_told_with_its_text(handler: ScriptedHandler, name: str) -> None:
    handler.answer = lambda item: batching_pb2.BatchItemResult(
        index=item.index, code=Code.NOT_FOUND, message="no such image" + "!" * 1000
    )
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        with pytest.raises(NotFound):
            await submit(batcher, name)
        visit = told(batcher, name)
    assert visit.code == "NOT_FOUND"
    assert visit.message.startswith("no such image")
    assert len(visit.message) <= 300


async def test_one_that_was_sent_again_tells_how_often(name: str) -> None:
    handler = ScriptedHandler()
    async with scripted_worker({"m": handler}) as first, dispatcher(first.target) as batcher:
        call = asyncio.ensure_future(submit(batcher, name))
        await handler.arrived.get()
        await first.kill()
        handler.go.set()
        async with scripted_worker({"m": handler}, first.target):
            await call
            visit = told(batcher, name)
    assert visit.broken_streams >= 1  # the next one may break too
    assert list(visit.stage_seconds) == ["broken", "permit", "open", "closed"]


async def test_each_try_is_told_newest_first_and_the_oldest_is_forgotten(handler: ScriptedHandler, name: str) -> None:
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target, remembered=3) as batcher:
        for timeout in (1.0, 2.0, 3.0):
            await submit(batcher, name.upper(), timeout)
        answer = explain(batcher.recent, name)
        assert [round(visit.timeout_seconds) for visit in answer.batcher] == [3, 2, 1]
        assert (answer.memory.requests, answer.memory.limit) == (3, 3)
        await submit(batcher, "another")
        assert [round(visit.timeout_seconds) for visit in explain(batcher.recent, name).batcher] == [3, 2]


async def test_answers_are_not_kept(handler: ScriptedHandler, name: str) -> None:
    mask = b"mask" * 1000
    handler.answer = lambda item: batching_pb2.BatchItemResult(index=item.index, response=mask)
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        assert await submit(batcher, name) == mask
        (request,) = batcher.recent.newest_first()
        assert mask not in gc.get_referents(request, request.answer)
        assert SECRET not in repr(request)


async def test_by_itself_a_dispatcher_keeps_nothing(handler: ScriptedHandler) -> None:
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target, remembered=0) as batcher:
        await submit(batcher, "x")
        assert batcher.recent.newest_first() == []


async def test_looking_through_many_messages_pauses_for_the_batcher_itself(handler: ScriptedHandler, name: str) -> None:
    pauses: list[float] = []
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target, remembered=400) as batcher:
        await asyncio.gather(*(submit(batcher, name if n == 7 else "x" * 800) for n in range(300)))
        answer = explain(batcher.recent, name, pauses.append)
    assert len(answer.batcher) == 1
    assert len(pauses) >= 300 * 800 // SLICE_BYTES


async def test_one_that_was_answered_before_its_batch_ran_is_told_so(name: str) -> None:
    handler = ScriptedHandler(BatchingSettings(max_batch_size=2, max_queue_delay_microseconds=10**7))
    handler.early = f"{SECRET} {name}".encode()
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        await submit(batcher, name)
        assert told(batcher, name).batch is not None
        handler.go.set()
        await submit(batcher, "another", timeout=60)  # closes the batch
        visit = told(batcher, name)
        assert visit.stage_seconds["closed"] == 0
        assert visit.code == "OK"
