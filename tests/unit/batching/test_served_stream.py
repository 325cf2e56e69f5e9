"""The worker's half of a batching stream, before batchers of other versions and such that hang."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

import grpc
import pytest

from shoal.batching import served_stream
from shoal.batching.v1 import batching_pb2
from shoal.batching.wire import PRIORITY, SETTINGS, TAKEN, TAKES, WORKER, read_settings
from shoal.modelconfig.batching import BatchingSettings
from shoal.runtime.priority import Priority
from support.raw_peers import batch, raw_batcher
from support.scripted_batches import ScriptedHandler, scripted_worker
from support.until import until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from support.raw_peers import Call
    from support.scripted_batches import ScriptedBatch

ONE = BatchingSettings(max_batch_size=4)


def running() -> ScriptedHandler:
    handler = ScriptedHandler(ONE)
    handler.go.set()
    return handler


async def results(call: Call) -> list[bytes]:
    """Of the next message."""
    chunk = await call.read()
    assert isinstance(chunk, batching_pb2.BatchResultChunk)
    return [result.response for result in chunk.results]


async def test_a_worker_says_who_it_is_and_what_it_takes() -> None:
    async with scripted_worker({"m": running()}) as one, scripted_worker({"m": running()}) as other:
        names = []
        for worker in (one, one, other):
            async with raw_batcher(worker.target) as call:
                told = dict(await call.initial_metadata())
                assert told[TAKES] == "withdrawn"
                assert read_settings(told[SETTINGS]).settings == ONE
                names.append(told[WORKER])
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(("instances", "part"), [(4, 2), (5, 3), (1, 1)])
async def test_one_of_several_processes_tells_its_part_of_the_instances(instances: int, part: int) -> None:
    handler = ScriptedHandler(replace(ONE, instance_count=instances))
    async with scripted_worker({"m": handler}, processes=2) as worker, raw_batcher(worker.target) as call:
        told = dict(await call.initial_metadata())
    assert read_settings(told[SETTINGS]).settings == replace(ONE, instance_count=part)


async def test_the_first_results_say_for_how_long_their_batch_was_at_the_engine_where_that_is_known() -> None:
    handler = ScriptedHandler(ONE, late=b"late")
    async with scripted_worker({"m": handler}) as worker, raw_batcher(worker.target) as call:

        async def told(*requests: bytes, first: int, ready_at: float) -> list[int]:
            handler.ready_at = ready_at
            await call.write(batch(*requests, first=first))
            chunks = [await call.read() for _ in requests]
            return [chunk.engine_us for chunk in chunks if isinstance(chunk, batching_pb2.BatchResultChunk)]

        handler.go.set()
        handler.late_go.set()
        began = monotonic()
        known, of_straggler = await told(b"a", b"late", first=0, ready_at=began - 5)
        assert 5e6 <= known <= 1e6 * (5 + monotonic() - began)
        assert of_straggler == 0
        assert await told(b"b", first=2, ready_at=monotonic() + 5) == [1]  # never none where it is known
        assert await told(b"c", first=3, ready_at=0.0) == [0]


async def test_the_first_results_say_what_was_executed_where_that_is_known() -> None:
    handler = ScriptedHandler(ONE, late=b"late")
    async with scripted_worker({"m": handler}) as worker, raw_batcher(worker.target) as call:
        handler.go.set()
        handler.late_go.set()
        for first, executed, put_off in ((0, 1, 0), (3, 0, 0), (6, 12, 5)):
            handler.executed, handler.put_off = executed, put_off
            await call.write(batch(b"a", b"b", b"late", first=first))
            chunks = [await call.read() for _ in range(2)]
            told = [
                (chunk.executed, chunk.put_off) for chunk in chunks if isinstance(chunk, batching_pb2.BatchResultChunk)
            ]
            assert told == [(executed, put_off), (0, 0)]


async def test_a_batcher_of_an_older_version_says_nothing_of_callers_who_leave() -> None:
    handler = running()
    async with scripted_worker({"m": handler}) as worker, raw_batcher(worker.target) as call:
        for first in (0, 2):
            await call.write(batch(b"a", b"b", first=first))
            assert await results(call) == [b"a", b"b"]
    assert handler.withdrawn.empty()


async def test_a_withdrawal_reaches_a_batch_while_it_fills_while_it_runs_and_while_it_waits_for_a_straggler() -> None:
    handler = ScriptedHandler(ONE, late=b"late")
    async with scripted_worker({"m": handler}) as worker, raw_batcher(worker.target) as call:
        await call.write(batch(b"a", b"b", last=False))
        await call.write(batching_pb2.BatchChunk(withdrawn=[0]))
        assert await handler.withdrawn.get() == 0
        await call.write(batch(b"late", first=2))
        await until(lambda: handler.batches)
        await call.write(batching_pb2.BatchChunk(withdrawn=[1]))
        assert await handler.withdrawn.get() == 1
        handler.go.set()
        assert await results(call) == [b"a", b"b"]
        await call.write(batching_pb2.BatchChunk(withdrawn=[2]))
        assert await handler.withdrawn.get() == 2
        handler.late_go.set()
        assert await results(call) == [b"late"]


async def test_a_withdrawal_that_comes_with_its_item_or_before_it_counts_too() -> None:
    handler = running()
    async with scripted_worker({"m": handler}) as worker, raw_batcher(worker.target) as call:
        await call.write(batching_pb2.BatchChunk(withdrawn=[1]))
        together = batch(b"a", b"b", b"c")
        together.withdrawn.append(2)
        await call.write(together)
        assert await results(call) == [b"a", b"b", b"c"]
    assert sorted(handler.withdrawn.get_nowait() for _ in range(handler.withdrawn.qsize())) == [1, 2]


async def test_a_withdrawal_of_what_is_answered_or_never_comes_is_nothing() -> None:
    handler = running()
    async with scripted_worker({"m": handler}) as worker, raw_batcher(worker.target) as call:
        await call.write(batch(b"a"))
        assert await results(call) == [b"a"]
        await call.write(batching_pb2.BatchChunk(withdrawn=[0, 0, 4_000_000_000, *range(1000, 10_000)]))
        await call.write(batch(b"b", first=1))
        assert await results(call) == [b"b"]
    assert handler.withdrawn.empty()


async def test_a_message_without_items_begins_no_batch() -> None:
    handler = running()
    async with scripted_worker({"m": handler}) as worker, raw_batcher(worker.target) as call:
        await call.initial_metadata()
        await call.write(batching_pb2.BatchChunk(withdrawn=[0]))
        await call.write(batching_pb2.BatchChunk())
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
    assert handler.batches == []


async def test_a_batch_without_the_method_runs_to_its_end() -> None:
    handler = ScriptedHandler(ONE)
    begin = handler.begin

    class Older:
        def __init__(self, batch: ScriptedBatch) -> None:
            self.add, self.finish, self.abandon = batch.add, batch.finish, batch.abandon

    handler.begin = lambda method, _: Older(begin(method))  # type: ignore[assignment, return-value]
    async with scripted_worker({"m": handler}) as worker, raw_batcher(worker.target) as call:
        await call.write(batch(b"a"))
        await until(lambda: handler.batches)
        await call.write(batching_pb2.BatchChunk(withdrawn=[0]))
        handler.go.set()
        assert await results(call) == [b"a"]


async def test_a_draining_worker_says_how_much_it_has_begun() -> None:
    handler = running()
    async with scripted_worker({"m": handler}) as worker, raw_batcher(worker.target) as call:
        await call.write(batch(b"a", b"b"))
        assert await results(call) == [b"a", b"b"]
        await worker.service.drain()
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert dict(await call.trailing_metadata())[TAKEN] == "2"


async def test_a_stream_that_breaks_in_a_batch_says_nothing_of_it() -> None:
    def fail(item: batching_pb2.BatchItem) -> batching_pb2.BatchItemResult:
        raise SystemError

    handler = running()
    handler.answer = fail
    async with scripted_worker({"m": handler}) as worker, raw_batcher(worker.target) as call:
        await call.write(batch(b"a"))
        assert await call.code() is grpc.StatusCode.UNKNOWN
        assert TAKEN not in dict(await call.trailing_metadata())


async def answered(target: str, request: bytes, name: str) -> Sequence[bytes]:
    async with raw_batcher(target, name) as call:
        await call.write(batch(request))
        return await results(call)


async def test_a_batcher_that_leaves_its_batches_open_gives_its_permits_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_stream, "OPEN_SECONDS", 0.05)
    handler = running()
    async with scripted_worker({"m": handler}) as worker:
        hung = [raw_batcher(worker.target, "hung") for _ in range(2)]
        async with hung[0] as one, hung[1] as two:
            for call in (one, two):
                await call.write(batch(b"open", last=False))
            for call in (one, two):
                assert await call.code() is grpc.StatusCode.UNAVAILABLE
                assert "left a batch open" in (await call.details() or "")
                assert TAKEN not in dict(await call.trailing_metadata())
        assert await answered(worker.target, b"x", "other") == [b"x"]


async def test_items_without_an_end_do_not_keep_a_batch_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_stream, "OPEN_SECONDS", 0.05)
    handler = running()
    async with scripted_worker({"m": handler}) as worker, raw_batcher(worker.target, "trickles") as call:
        (served,) = worker.service._served["m"]
        await call.initial_metadata()
        first = 0
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it may end just before a write
            while not call.done():
                await call.write(batch(b"x", first=first, last=False))
                first += 1
                await asyncio.sleep(0.005)
        await until(lambda: handler.abandoned)
        await until(lambda: not served.gate.granted)


async def test_a_batcher_that_does_not_read_gives_its_permits_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_stream, "WRITE_SECONDS", 0.05)
    large = bytes(6 * 2**20)
    handler = running()
    handler.answer = lambda item: batching_pb2.BatchItemResult(index=item.index, response=large)
    async with scripted_worker({"m": handler}) as worker, raw_batcher(worker.target, "hung") as hung:
        (served,) = worker.service._served["m"]
        await hung.write(batch(*[b"x"] * 4))
        await until(lambda: handler.abandoned)
        await until(lambda: not served.gate.granted)
        await asyncio.wait_for(worker.service.drain(), 60)


async def test_a_straggler_that_a_batcher_does_not_read_ends_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_stream, "WRITE_SECONDS", 0.05)
    handler = running()
    handler.late = b"late"
    handler.answer = lambda item: batching_pb2.BatchItemResult(index=item.index, response=bytes(24 * 2**20))
    handler.late_go.set()
    async with scripted_worker({"m": handler}) as worker, raw_batcher(worker.target, "hung") as hung:
        (served,) = worker.service._served["m"]
        await hung.write(batch(b"late"))
        await until(lambda: handler.batches)
        await until(lambda: not served.gate.granted)


async def test_bulk_streams_of_a_batcher_take_no_permit_from_its_interactive_ones() -> None:
    """Both are of one name and method; a batcher that says nothing, or something unknown, is interactive."""
    handler = ScriptedHandler(ONE)
    metadata = [((PRIORITY, "bulk"),), ((PRIORITY, "interactive"),), (), ((PRIORITY, "urgent"),)]
    async with scripted_worker({"m": handler}) as worker:
        (served,) = worker.service._served["m"]
        async with AsyncExitStack() as open_streams:
            for told in metadata:
                call = await open_streams.enter_async_context(raw_batcher(worker.target, "same", more=told))
                if told == metadata[-1]:
                    break  # the third interactive one: two are all that there are
                await call.write(batch(b"a"))
            await until(lambda: len(handler.batches) == 3)
            assert [served.gate.in_use_of(each) for each in Priority] == [2, 1]
            assert sorted(handler.priorities) == ["bulk", "interactive", "interactive"]
            more = await open_streams.enter_async_context(raw_batcher(worker.target, "same", more=metadata[0]))
            waiting = asyncio.ensure_future(more.initial_metadata())
            await asyncio.wait([waiting], timeout=0.05)
            assert not waiting.done()
            handler.go.set()
            await waiting


Told = tuple[list[bytes], bool, bool]


async def told(call: Call) -> Told:
    """Answers of the next message, whether they are early, and whether a permit comes along."""
    chunk = await call.read()
    assert isinstance(chunk, batching_pb2.BatchResultChunk)
    return [result.response for result in chunk.results], chunk.early, chunk.permit


async def test_what_is_known_before_the_batch_runs_leaves_at_once() -> None:
    handler = ScriptedHandler(ONE, early=b"known")
    takes = ((TAKES, "other,early"),)
    async with scripted_worker({"m": handler}) as worker, raw_batcher(worker.target, more=takes) as call:
        await call.write(batch(b"known", b"new", last=False))
        assert await told(call) == ([b"known"], True, False)
        await call.write(batch(b"known", first=2))
        assert await told(call) == ([b"known"], True, False)
        handler.go.set()
        assert await told(call) == ([b"new"], False, True)
        await call.write(batch(b"known", first=3))
        assert sorted([await told(call), await told(call)]) == [([], False, True), ([b"known"], True, False)]
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


async def test_an_older_batcher_gets_nothing_before_the_batch_ran() -> None:
    handler = ScriptedHandler(ONE, early=b"known")
    handler.go.set()
    async with scripted_worker({"m": handler}) as worker, raw_batcher(worker.target) as call:
        await call.write(batch(b"known", b"new"))
        assert await told(call) == ([b"known", b"new"], False, True)
