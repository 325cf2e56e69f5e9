from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import grpc
import pytest

from shoal.batcher import batch_stream, dispatch
from shoal.batcher.core import open_channel
from shoal.batcher.dispatch import Dispatcher
from shoal.batcher.meter import STRANGER
from shoal.batching.v1 import batching_pb2
from shoal.batching.wire import SERVICE
from shoal.errors import Code, DeadlineExceeded, InvalidRequest, NotFound, Overloaded
from shoal.modelconfig.batching import BatchingSettings
from shoal.observe import metrics
from support.scripted_batches import ScriptedHandler, scripted_worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

METHOD = "/shoal.v1.Inference/Classify"


@contextlib.asynccontextmanager
async def dispatcher(target: str, name: str = "test") -> AsyncIterator[Dispatcher]:
    made = Dispatcher(open_channel(target), name)
    try:
        yield made
    finally:
        await made.close()


async def submit(to: Dispatcher, message: bytes, *, model: str = "m", timeout: float = 5.0, owner: str = "a") -> bytes:
    return await to.submit(METHOD, model, owner, message, timeout)


def running() -> ScriptedHandler:
    handler = ScriptedHandler()
    handler.go.set()
    return handler


async def test_each_call_gets_its_own_answer_and_full_batches_travel_together() -> None:
    handler = running()
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        answers = await asyncio.gather(*(submit(batcher, bytes([n])) for n in range(12)))
    assert answers == [bytes([n]) for n in range(12)]
    assert sum(len(batch) for batch in handler.batches) == 12
    assert max(len(batch) for batch in handler.batches) == 4
    assert set(handler.methods) == {METHOD}


async def test_an_item_carries_owner_waiting_time_and_what_is_left_of_the_deadline() -> None:
    handler = running()
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        await submit(batcher, b"x", owner="somebody", timeout=3.0)
    (item,) = handler.batches[0]
    assert item.owner == "somebody"
    assert 0 < item.timeout_us <= 3_000_000
    assert item.queued_us + item.timeout_us == pytest.approx(3_000_000, abs=10)


async def test_one_bad_item_fails_alone() -> None:
    def answer(item: batching_pb2.BatchItem) -> batching_pb2.BatchItemResult:
        if item.request == b"bad":
            return batching_pb2.BatchItemResult(index=item.index, code=Code.INVALID_ARGUMENT, message="broken")
        return batching_pb2.BatchItemResult(index=item.index, response=b"fine")

    handler = running()
    handler.answer = answer
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        results = await asyncio.gather(
            *(submit(batcher, message) for message in (b"1", b"bad", b"2", b"3")), return_exceptions=True
        )
    assert [results[0], results[2], results[3]] == [b"fine"] * 3
    assert isinstance(results[1], InvalidRequest)
    assert str(results[1]) == "broken"


async def test_what_the_load_balancer_does_not_know_is_not_found() -> None:
    async def refuse(_: object, context: grpc.aio.ServicerContext) -> None:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no model 'm'")

    balancer = grpc.aio.server()
    compute = {"Compute": grpc.stream_stream_rpc_method_handler(refuse)}
    balancer.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, compute),))
    port = balancer.add_insecure_port("127.0.0.1:0")
    await balancer.start()
    async with dispatcher(f"127.0.0.1:{port}") as batcher:
        with pytest.raises(NotFound, match="no model 'm'"):
            await submit(batcher, b"x")
    await balancer.stop(None)


async def test_a_method_that_the_model_lacks_is_refused_and_leaves_the_permits_to_the_others() -> None:
    handler = running()
    handler.refuses = "/shoal.v1.Inference/Detect"
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        for _ in range(3):
            assert await submit(batcher, b"x") == b"x"
            with pytest.raises(InvalidRequest, match="call something else"):
                await batcher.submit(handler.refuses, "m", "a", b"x", 5.0)


async def test_a_refused_method_leaves_the_models_gauges_to_the_others() -> None:
    handler = running()
    handler.refuses = "/shoal.v1.Inference/Detect"
    async with scripted_worker({"gauged": handler}) as worker, dispatcher(worker.target) as batcher:
        await submit(batcher, b"x", model="gauged")
        with pytest.raises(InvalidRequest):
            await batcher.submit(handler.refuses, "gauged", "a", b"x", 5.0)
        states = ("parked", "permitted", "in use", "retiring")
        assert sum(sample("streams", model="gauged", state=state) for state in states) >= 1


async def test_a_model_that_nobody_serves_gets_no_series_of_its_own() -> None:
    before = sample("requests_total", model=STRANGER, code="DEADLINE_EXCEEDED")
    async with scripted_worker({}) as worker, dispatcher(worker.target) as batcher:
        with pytest.raises(DeadlineExceeded):
            await submit(batcher, b"x", model="invented", timeout=0.05)
    assert sample("requests_total", model=STRANGER, code="DEADLINE_EXCEEDED") == before + 1
    assert "invented" not in metrics.text(metrics.BATCHER).decode()


async def test_bytes_and_times_of_answers_are_counted() -> None:
    handler = running()
    async with scripted_worker({"counted": handler}) as worker, dispatcher(worker.target) as batcher:
        await submit(batcher, b"four", model="counted")
    assert sample("request_bytes_total", model="counted") == 4
    assert sample("answer_bytes_total", model="counted") == 4
    assert sample("request_seconds_count", model="counted") == 1


async def test_a_caller_that_leaves_is_counted_too() -> None:
    handler = ScriptedHandler()
    async with scripted_worker({"left": handler}) as worker, dispatcher(worker.target) as batcher:
        call = asyncio.ensure_future(submit(batcher, b"x", model="left"))
        await handler.arrived.get()
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        handler.go.set()
    assert sample("requests_total", model="left", code="CANCELLED") == 1


def sample(name: str, **labels: str) -> float:
    if name.startswith(("requests_", "request_seconds", "queue_seconds")):
        labels["priority"] = "interactive"
    return metrics.BATCHER.get_sample_value(f"shoal_batcher_{name}", labels) or 0.0


async def test_an_idle_batcher_leaves_permits_to_the_others() -> None:
    async with (
        scripted_worker({"m": running()}) as worker,
        dispatcher(worker.target, "first") as first,
        dispatcher(worker.target, "second") as second,
    ):
        for batcher in (first, second, second, second, first):
            assert await submit(batcher, b"x") == b"x"


async def test_a_request_waits_for_a_worker_that_is_still_loading_its_model() -> None:
    handler = running()
    async with scripted_worker({}) as worker, dispatcher(worker.target) as batcher:
        call = asyncio.ensure_future(submit(batcher, b"x"))
        await asyncio.sleep(0)
        await worker.service.put("m", handler)
        assert await call == b"x"


async def test_a_deadline_that_passes_at_the_worker_is_answered_by_the_batcher() -> None:
    handler = ScriptedHandler()
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        with pytest.raises(DeadlineExceeded):
            await submit(batcher, b"x", timeout=0.05)
        handler.go.set()


async def test_a_deadline_that_passes_without_a_permit_costs_the_worker_nothing() -> None:
    handler = ScriptedHandler(BatchingSettings())
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        busy = [asyncio.ensure_future(submit(batcher, b"busy")) for _ in range(2)]
        for _ in busy:
            await handler.arrived.get()
        with pytest.raises(DeadlineExceeded):
            await submit(batcher, b"late", timeout=0.05)
        handler.go.set()
        await asyncio.gather(*busy)
    assert [item.request for batch in handler.batches for item in batch] == [b"busy", b"busy"]


async def test_a_cancelled_caller_leaves_its_batch_mates_alone() -> None:
    handler = ScriptedHandler()
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        gone, stays = (asyncio.ensure_future(submit(batcher, name)) for name in (b"gone", b"stays"))
        await handler.arrived.get()
        await handler.arrived.get()
        gone.cancel()
        handler.go.set()
        assert await stays == b"stays"
        assert gone.cancelled()


async def test_items_of_a_dead_worker_go_to_the_next() -> None:
    first, second = ScriptedHandler(), running()
    async with scripted_worker({"m": first}) as worker, dispatcher(worker.target) as batcher:
        calls = [asyncio.ensure_future(submit(batcher, bytes([n]))) for n in range(3)]
        for _ in calls:
            await first.arrived.get()
        await worker.kill()
        async with scripted_worker({"m": second}, worker.target):
            assert await asyncio.gather(*calls) == [bytes([n]) for n in range(3)]
            await batcher.close()
    assert first.abandoned >= 1


async def test_a_worker_knows_when_no_batcher_is_left() -> None:
    async with scripted_worker({"m": running()}) as worker:
        async with dispatcher(worker.target) as batcher:
            await submit(batcher, b"x")
            deserted = asyncio.ensure_future(worker.service.deserted())
            await asyncio.sleep(0)
            assert not deserted.done()
        await deserted


async def test_a_draining_worker_finishes_its_batch_and_takes_no_other() -> None:
    handler = ScriptedHandler(BatchingSettings())
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        inside = asyncio.ensure_future(submit(batcher, b"inside"))
        await handler.arrived.get()
        drained = asyncio.ensure_future(worker.service.drain())
        with pytest.raises(DeadlineExceeded):
            await submit(batcher, b"outside", timeout=0.05)
        assert not drained.done()
        handler.go.set()
        assert await inside == b"inside"
        await drained


async def test_a_model_is_replaced_under_load_without_a_failed_call() -> None:
    old, new = running(), running()
    async with scripted_worker({"m": old}) as worker, dispatcher(worker.target) as batcher:
        await asyncio.gather(*(submit(batcher, b"x") for _ in range(20)))
        calls = [asyncio.ensure_future(submit(batcher, b"x")) for _ in range(20)]
        await worker.service.put("m", new)
        await asyncio.gather(*calls)
        await submit(batcher, b"last")
    assert [item.request for item in new.batches[-1]] == [b"last"]


async def test_batches_follow_each_other_while_a_straggler_is_waited_for() -> None:
    handler = running()
    handler.late = b"late"
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        late = asyncio.ensure_future(submit(batcher, b"late"))
        await asyncio.gather(*(submit(batcher, bytes([n])) for n in range(40)))
        assert not late.done()
        handler.late_go.set()
        assert await late == b"late"


async def test_a_batch_that_is_large_travels_in_several_messages() -> None:
    handler = running()
    handler.settings = BatchingSettings(max_batch_size=128, max_queue_delay_microseconds=50_000)
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        messages = [bytes([n]) * 65_000 for n in range(100)]
        assert await asyncio.gather(*(submit(batcher, message) for message in messages)) == messages


async def test_a_stream_that_is_old_is_replaced_after_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_stream, "RETIRE_SECONDS", (0.0, 0.0))
    handler = running()
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        for n in range(20):
            assert await submit(batcher, bytes([n])) == bytes([n])


async def test_old_streams_with_stragglers_hold_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_stream, "RETIRE_SECONDS", (0.0, 0.0))
    handler = running()
    handler.late = b"late"
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        late = []
        for n in range(10):
            late.append(asyncio.ensure_future(submit(batcher, b"late")))
            assert await submit(batcher, bytes([n])) == bytes([n])
        handler.late_go.set()
        assert await asyncio.gather(*late) == [b"late"] * 10


async def test_a_full_queue_answers_at_once() -> None:
    handler = ScriptedHandler(BatchingSettings(max_queue_size=1))
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        busy = [asyncio.ensure_future(submit(batcher, b"busy")) for _ in range(2)]
        for _ in busy:
            await handler.arrived.get()
        waiting = asyncio.ensure_future(submit(batcher, b"waiting"))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="queue is full"):
            await submit(batcher, b"too much")
        handler.go.set()
        await asyncio.gather(*busy, waiting)


async def test_models_do_not_share_batches() -> None:
    one, two = running(), running()
    async with scripted_worker({"one": one, "two": two}) as worker, dispatcher(worker.target) as batcher:
        await asyncio.gather(*(submit(batcher, b"x", model=model) for model in ("one", "two") * 4))
    assert sum(len(batch) for batch in one.batches) == sum(len(batch) for batch in two.batches) == 4


async def test_closing_answers_what_is_left() -> None:
    handler = ScriptedHandler()
    async with scripted_worker({"m": handler}) as worker:
        async with dispatcher(worker.target) as batcher:
            call = asyncio.ensure_future(submit(batcher, b"x"))
            await handler.arrived.get()
        with pytest.raises(Exception, match="stopping"):
            await call


async def test_invented_methods_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "MAX_QUEUES", 2)
    async with dispatcher("127.0.0.1:1") as batcher:
        invented = [asyncio.ensure_future(batcher.submit(f"/a.B/{n}", "m", "", b"", 5.0)) for n in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="2 methods"):
            await batcher.submit("/a.B/2", "m", "", b"", 5.0)
        for call in invented:
            call.cancel()


async def test_methods_that_were_refused_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "MAX_QUEUES", 1)
    handler = running()
    handler.refuses = "/a.B/None"
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        with pytest.raises(InvalidRequest):
            await batcher.submit("/a.B/None", "m", "", b"", 5.0)
        assert await submit(batcher, b"x") == b"x"
