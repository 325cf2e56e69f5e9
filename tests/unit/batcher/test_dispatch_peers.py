"""The dispatcher before workers that die, roll, hang, or are of another version."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from shoal.batcher import dispatch, model_queue
from shoal.batcher.batch_stream import BatchStream
from shoal.batcher.core import open_channel
from shoal.batcher.dispatch import Dispatcher
from shoal.batcher.learning import BatchTimes
from shoal.batcher.request import Request
from shoal.batching.permits import PermitGate
from shoal.batching.v1 import batching_pb2
from shoal.batching.wire import BATCHER, SETTINGS, TAKEN, TAKES, WORKER
from shoal.errors import (
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    Overloaded,
    Unavailable,
    Unimplemented,
)
from shoal.modelconfig.batching import BatchingSettings
from shoal.observe import metrics
from shoal.runtime import rpc
from shoal.runtime.priority import Priority
from support.raw_peers import items_of_one_batch, raw_worker, serve_batches
from support.scripted_batches import ScriptedHandler, echo, scripted_worker
from support.until import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from support.raw_peers import Context

METHOD = "/shoal.v1.Inference/Classify"
FOUR = json.dumps({"max_batch_size": 4, "max_queue_delay_microseconds": 100_000})
ONE = json.dumps({"max_batch_size": 1})
NAMES = pytest.mark.parametrize("name", [((WORKER, "one"),), ()], ids=["named", "unnamed"])


@contextlib.asynccontextmanager
async def dispatcher(target: str, name: str = "test", **options: Any) -> AsyncIterator[Dispatcher]:
    made = Dispatcher(open_channel(target), name, **options)
    try:
        yield made
    finally:
        await made.close()


async def submit(to: Dispatcher, message: bytes, *, model: str = "m", timeout: float = 5.0, owner: str = "a") -> bytes:
    return await to.submit(METHOD, model, owner, message, timeout)


def sample(name: str, **labels: str) -> float:
    return metrics.BATCHER.get_sample_value(f"shoal_batcher_{name}", labels) or 0.0


async def until_no_queue(of: Dispatcher) -> None:
    await until(lambda: not of._queues)


class Poisoned(ScriptedHandler):
    """Breaks the stream of any batch with ``poison`` in it."""

    def answer_or_break(self, item: batching_pb2.BatchItem) -> batching_pb2.BatchItemResult:
        if item.request == b"poison":
            raise SystemError("as if the process had died")
        return echo(item)


def poisoned() -> Poisoned:
    handler = Poisoned(BatchingSettings(max_batch_size=8, max_queue_delay_microseconds=50_000))
    handler.answer = handler.answer_or_break
    handler.go.set()
    return handler


async def test_a_request_that_breaks_its_stream_does_so_twice_and_its_mates_are_answered() -> None:
    handler = poisoned()
    async with scripted_worker({"poisoned": handler}) as worker, dispatcher(worker.target) as batcher:
        messages = [b"1", b"2", b"3", b"poison", b"4", b"5", b"6", b"7"]
        calls = (submit(batcher, message, model="poisoned") for message in messages)
        results = await asyncio.gather(*calls, return_exceptions=True)
    ended = results.pop(3)
    assert results == [message for message in messages if message != b"poison"]
    assert isinstance(ended, Unavailable)
    assert "alone" in str(ended)
    assert [len(batch) for batch in handler.batches] == [8] + [1] * 8
    seen = Counter(item.request for batch in handler.batches for item in batch)
    assert set(seen.values()) == {2}
    assert sample("given_up_total", model="poisoned") == 1
    assert sample("resent_total", model="poisoned") == 8
    assert sample("batches_closed_total", model="poisoned", reason="alone") == 8


async def test_suspects_of_two_methods_are_never_at_one_worker_together() -> None:
    """The method Detect has a handler of its own, and so permits: only the batcher keeps the two apart."""
    handler = poisoned()
    other = "/shoal.v1.Inference/Detect"
    at_once: list[int] = []

    def watched(item: batching_pb2.BatchItem) -> batching_pb2.BatchItemResult:
        at_once.append(len(quarantine._worker_of))
        return handler.answer_or_break(item)

    handler.answer = watched
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        quarantine = batcher._common.quarantine
        calls = [
            batcher.submit(method, "m", "a", message, 5.0)
            for method in (METHOD, other)
            for message in (b"1", b"2", b"poison", b"3")
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(result, Unavailable) for result in results) == 2
    assert max(at_once) == 1


async def test_a_worker_that_leaves_before_it_began_costs_no_batch_its_company() -> None:
    batches: list[list[bytes]] = []

    async def script(number: int, context: Context) -> None:
        await context.send_initial_metadata(((SETTINGS, FOUR), (TAKES, "withdrawn")))
        if number == 0:
            await items_of_one_batch(context)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the worker is draining", ((TAKEN, "0"),))
        await serve_batches(context, batches)

    async with raw_worker(script) as target, dispatcher(target) as batcher:
        messages = [bytes([n]) for n in range(4)]
        assert await asyncio.gather(*(submit(batcher, message) for message in messages)) == messages
    assert batches == [messages]


async def test_what_a_worker_began_before_it_left_is_tried_again_alone() -> None:
    batches: list[list[bytes]] = []

    async def script(number: int, context: Context) -> None:
        await context.send_initial_metadata(((SETTINGS, FOUR),))
        if number == 0:
            await items_of_one_batch(context)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "stopping", ((TAKEN, "2"),))
        await serve_batches(context, batches)

    async with raw_worker(script) as target, dispatcher(target) as batcher:
        messages = [bytes([n]) for n in range(4)]
        assert await asyncio.gather(*(submit(batcher, message) for message in messages)) == messages
    assert sorted(batches) == [[b"\0"], [b"\1"], [b"\2", b"\3"]]


@NAMES
async def test_other_permits_of_a_worker_that_died_are_worth_nothing(name: tuple[tuple[str, str], ...]) -> None:
    """Its streams break one after the other: who pays for the first must not be sent on the second."""
    batches: list[list[bytes]] = []
    died = asyncio.Event()

    async def script(number: int, context: Context) -> None:
        await context.send_initial_metadata(((SETTINGS, FOUR), *(name if number < 2 else ((WORKER, "two"),))))
        if number >= 2:
            await serve_batches(context, batches)
            return
        if await items_of_one_batch(context):
            died.set()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "as if the connection was reset")

    async with raw_worker(script) as target, dispatcher(target) as batcher:
        first = asyncio.ensure_future(submit(batcher, b"0", timeout=10.0))
        (queue,) = await queues(batcher)
        await until(lambda: len([stream for stream in queue._streams[Priority.INTERACTIVE] if stream.served]) == 2)
        messages = [bytes([n]) for n in range(1, 4)]
        answers = await asyncio.gather(first, *(submit(batcher, message, timeout=10.0) for message in messages))
    assert died.is_set()
    assert answers == [b"0", *messages]


@NAMES
@pytest.mark.parametrize("expires", [False, True])
async def test_callers_who_leave_a_retiring_stream_cost_its_neighbours_nothing(
    name: tuple[tuple[str, str], ...], expires: bool
) -> None:
    """Both streams have a straggler; the neighbour's has its next permit already."""
    go, old, both = asyncio.Event(), asyncio.Event(), asyncio.Event()
    begun: list[bytes] = []

    async def script(number: int, context: Context) -> None:
        await context.send_initial_metadata(((SETTINGS, ONE), (TAKES, "withdrawn"), *name))
        if items := await items_of_one_batch(context):
            begun.append(items[0].request)
            await (old if items[0].request == b"leaves" else both).wait()
            await context.write(batching_pb2.BatchResultChunk(permit=True))
            await go.wait()
            await context.write(batching_pb2.BatchResultChunk(results=[echo(items[0])]))

    model = f"left-{len(name)}-{expires}"
    async with raw_worker(script) as target, dispatcher(target) as batcher:
        leaves = asyncio.ensure_future(submit(batcher, b"leaves", model=model))
        stays = asyncio.ensure_future(submit(batcher, b"stays", model=model))
        (queue,) = await queues(batcher)
        await until(lambda: len(begun) == 2)
        carrying = {
            stream._unanswered[0].message: stream for stream in queue._streams[Priority.INTERACTIVE] if stream.in_flight
        }
        leaving, neighbour = carrying[b"leaves"], carrying[b"stays"]
        both.set()
        await until(lambda: neighbour.state == "permitted")
        leaving._retire_at = 0.0
        old.set()
        await until(lambda: leaving.state == "retiring")
        if expires:
            queue._expire([leaving._unanswered[0]])
        else:
            leaves.cancel()
        await until(lambda: leaving not in queue._streams[Priority.INTERACTIVE])
        (ended,) = await asyncio.gather(leaves, return_exceptions=True)
        assert isinstance(ended, DeadlineExceeded if expires else asyncio.CancelledError)
        assert (neighbour.state, neighbour.abandoned) == ("permitted", False)
        go.set()
        assert await stays == b"stays"
    assert sorted(begun) == [b"leaves", b"stays"]
    assert sample("resent_total", model=model) == 0


@NAMES
async def test_a_stream_that_breaks_leaves_the_stragglers_of_others_where_they_are(
    name: tuple[tuple[str, str], ...],
) -> None:
    """But the next requests, and the suspect, go on new streams."""
    go, dies, both = asyncio.Event(), asyncio.Event(), asyncio.Event()
    begun: list[tuple[bytes, int]] = []

    async def script(number: int, context: Context) -> None:
        await context.send_initial_metadata(((SETTINGS, ONE), *name))
        while items := await items_of_one_batch(context):
            begun.append((items[0].request, number))
            if items[0].request == b"dies" and number < 2:
                await dies.wait()
                await context.abort(grpc.StatusCode.UNAVAILABLE, "as if the connection was reset")
            if items[0].request == b"straggler":
                await both.wait()
                await context.write(batching_pb2.BatchResultChunk(permit=True))
                await go.wait()
            permit = items[0].request != b"straggler"
            await context.write(batching_pb2.BatchResultChunk(results=[echo(items[0])], permit=permit))

    model = f"dies-{len(name)}"
    async with raw_worker(script) as target, dispatcher(target) as batcher:
        straggler = asyncio.ensure_future(submit(batcher, b"straggler", model=model))
        suspect = asyncio.ensure_future(submit(batcher, b"dies", model=model))
        (queue,) = await queues(batcher)
        await until(lambda: len(begun) == 2)
        both.set()
        await until(
            lambda: any(
                stream.state == "permitted" and stream.in_flight for stream in queue._streams[Priority.INTERACTIVE]
            )
        )
        dies.set()
        assert await suspect == b"dies"
        assert await submit(batcher, b"next", model=model) == b"next"
        assert not straggler.done()
        go.set()
        assert await straggler == b"straggler"
    assert [request for request, _ in begun].count(b"straggler") == 1
    assert all(number >= 2 for _, number in begun[2:])
    assert sample("resent_total", model=model) == 1


async def queues(of: Dispatcher) -> list[model_queue.ModelQueue]:
    await until(lambda: of._queues)
    return list(of._queues.values())


@pytest.mark.parametrize("takes", ["withdrawn", "other,withdrawn"])
async def test_a_worker_is_told_of_callers_who_leave_many_in_one_message(takes: str) -> None:
    told: list[list[int]] = []
    all_here, over = asyncio.Event(), asyncio.Event()

    async def script(number: int, context: Context) -> None:
        await context.send_initial_metadata(((SETTINGS, FOUR), (TAKES, takes)))
        if items := await items_of_one_batch(context):
            assert len(items) == 4
            all_here.set()
            while sum(map(len, told)) < 3:
                chunk = await context.read()
                told.append(list(chunk.withdrawn))
            results = [echo(item) for item in items]
            await context.write(batching_pb2.BatchResultChunk(results=results, permit=True))
            await over.wait()

    async with raw_worker(script) as target, dispatcher(target) as batcher:
        calls = [asyncio.ensure_future(submit(batcher, bytes([n]))) for n in range(4)]
        await all_here.wait()
        for call in calls[1:]:
            call.cancel()
        assert await calls[0] == b"\0"
        over.set()
    assert told == [[1, 2, 3]]


async def test_a_deadline_that_passes_is_a_caller_that_leaves() -> None:
    told: asyncio.Queue[list[int]] = asyncio.Queue()

    async def script(number: int, context: Context) -> None:
        await context.send_initial_metadata(((SETTINGS, FOUR), (TAKES, "withdrawn")))
        while isinstance(chunk := await context.read(), batching_pb2.BatchChunk):
            if chunk.withdrawn:
                told.put_nowait(list(chunk.withdrawn))

    async with raw_worker(script) as target, dispatcher(target) as batcher:
        with pytest.raises(DeadlineExceeded):
            await submit(batcher, b"x", timeout=0.05)
        assert await told.get() == [0]


async def test_a_worker_of_an_older_version_hears_of_no_caller_who_leaves() -> None:
    """It would take a message without items for the beginning of a batch."""
    empty: list[batching_pb2.BatchChunk] = []
    here = asyncio.Event()
    batches: list[list[bytes]] = []

    async def script(number: int, context: Context) -> None:
        await context.send_initial_metadata(((SETTINGS, FOUR),))
        while isinstance(chunk := await context.read(), batching_pb2.BatchChunk):
            if not chunk.items and not chunk.last:
                empty.append(chunk)
            batches.append([item.request for item in chunk.items])
            here.set()
            if chunk.items and chunk.items[0].request == b"stays":
                results = [echo(item) for item in chunk.items]
                await context.write(batching_pb2.BatchResultChunk(results=results))

    async with raw_worker(script) as target, dispatcher(target) as batcher:
        gone = asyncio.ensure_future(submit(batcher, b"gone"))
        await here.wait()
        gone.cancel()
        assert await submit(batcher, b"stays") == b"stays"
    assert empty == []


async def test_a_stream_that_retires_with_departed_callers_only_is_left() -> None:
    cancelled = asyncio.Event()
    retired = asyncio.Event()

    async def script(number: int, context: Context) -> None:
        await context.send_initial_metadata(((SETTINGS, FOUR), (TAKES, "withdrawn")))
        if not await items_of_one_batch(context):
            return
        try:
            await context.write(batching_pb2.BatchResultChunk(permit=True))  # the item is a straggler
            while isinstance(await context.read(), batching_pb2.BatchChunk):
                pass
            retired.set()
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with raw_worker(script) as target, dispatcher(target) as batcher:
        call = asyncio.ensure_future(submit(batcher, b"x"))
        await asyncio.sleep(0)
        (queue,) = batcher._queues.values()
        for stream in queue._streams[Priority.INTERACTIVE]:
            stream._retire_at = 0.0
        await retired.wait()
        call.cancel()
        async with asyncio.timeout(60):
            await cancelled.wait()


def raw_settings(text: str, batches: list[list[bytes]]) -> Any:
    async def script(number: int, context: Context) -> None:
        await context.send_initial_metadata(((SETTINGS, text),))
        await serve_batches(context, batches)

    return script


NEWER = json.dumps({"max_batch_size": 4, "max_queue_delay_microseconds": 100_000, "colour": {"a": [1]}})


@pytest.mark.parametrize("text", [FOUR, NEWER], ids=["older", "newer"])
async def test_a_worker_of_another_version_gets_full_batches(text: str, caplog: pytest.LogCaptureFixture) -> None:
    batches: list[list[bytes]] = []
    async with raw_worker(raw_settings(text, batches)) as target, dispatcher(target) as batcher:
        model = f"m{text is NEWER}"
        messages = [bytes([n]) for n in range(4)]
        assert await asyncio.gather(*(submit(batcher, message, model=model) for message in messages)) == messages
    assert batches == [messages]
    lines = [record.getMessage() for record in caplog.records if "settings" in record.getMessage()]
    assert len(lines) == (text is NEWER)
    assert all("colour" in line for line in lines)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"max_batch_size": "8"}', '{"max_batch_size": 0}', '{"preferred_batch_size": 4}', "[" * 9999]
)
async def test_settings_that_can_not_be_read_leave_the_last_good_ones(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    batches: list[list[bytes]] = []

    async def script(number: int, context: Context) -> None:
        if number:
            await good.wait()
        await context.send_initial_metadata(((SETTINGS, text if number else FOUR),))
        await serve_batches(context, batches)

    good = asyncio.Event()
    async with raw_worker(script) as target, dispatcher(target) as batcher:
        model = f"unreadable{abs(hash(text))}"
        await submit(batcher, b"first", model=model)
        good.set()
        (queue,) = batcher._queues.values()
        await until(lambda: queue._policy.idle_permits >= 2)
        messages = [bytes([n]) for n in range(4)]
        assert await asyncio.gather(*(submit(batcher, message, model=model) for message in messages)) == messages
    assert batches == [[b"first"], messages]
    assert sum("last good ones stay" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(
    "method", ["/a.B/\0", "/a.B/é", "/a.B/�", "/a.B/ C", "/a.B", "/", "", "/a.B/C/D", f"/a.B/{'x' * 300}"]
)
async def test_methods_that_can_not_be_are_refused_at_once(method: str) -> None:
    async with dispatcher("127.0.0.1:1") as batcher:
        with pytest.raises(Unimplemented, match="expected /package"):
            await batcher.submit(method, "m", "a", b"x", 5.0)
        assert not batcher._queues


@pytest.mark.parametrize("model", ["a b", "ü", "\0", "x" * 300])
async def test_models_that_can_not_be_are_refused_at_once(model: str) -> None:
    async with dispatcher("127.0.0.1:1") as batcher:
        with pytest.raises(InvalidRequest, match="no model can have the name"):
            await batcher.submit(METHOD, model, "a", b"x", 5.0)


async def test_a_queue_that_no_worker_serves_ends_once_nobody_waits_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_queue, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(model_queue, "IDLE_UNSERVED_SECONDS", 0.0)
    async with scripted_worker({}) as worker, dispatcher(worker.target) as batcher:
        with pytest.raises(DeadlineExceeded, match="doesn't serve model 'invented'"):
            await submit(batcher, b"x", model="invented", timeout=0.3)
        await until_no_queue(batcher)
        await asyncio.wait_for(worker.service.deserted(), 60)


async def test_a_queue_that_is_served_but_idle_for_long_ends_and_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_queue, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(model_queue, "IDLE_SECONDS", 0.0)
    handler = ScriptedHandler()
    handler.go.set()
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        for _ in range(2):
            assert await submit(batcher, b"x") == b"x"
            await until_no_queue(batcher)
        await asyncio.wait_for(worker.service.deserted(), 60)


async def test_a_queue_in_which_somebody_waits_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_queue, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(model_queue, "IDLE_UNSERVED_SECONDS", 0.0)
    handler = ScriptedHandler()
    handler.go.set()
    async with scripted_worker({}) as worker, dispatcher(worker.target) as batcher:
        call = asyncio.ensure_future(submit(batcher, b"x"))
        await asyncio.sleep(0.05)
        assert len(batcher._queues) == 1
        await worker.service.put("m", handler)
        assert await call == b"x"


async def test_one_callers_inventions_leave_room_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "MAX_UNSERVED_OF_ONE", 2)
    async with dispatcher("127.0.0.1:1") as batcher:
        calls = [asyncio.ensure_future(submit(batcher, b"x", model=f"m{n}", owner="greedy")) for n in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="no worker serves"):
            await submit(batcher, b"x", model="m2", owner="greedy")
        calls.append(asyncio.ensure_future(submit(batcher, b"x", model="m2", owner="modest")))
        await asyncio.sleep(0)
        assert len(batcher._queues) == 3
        for call in calls:
            call.cancel()


async def test_where_there_is_no_room_the_caller_with_most_unserved_queues_makes_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "MAX_QUEUES", 3)
    async with dispatcher("127.0.0.1:1") as batcher:
        greedy = [asyncio.ensure_future(submit(batcher, b"x", model=f"m{n}", owner="greedy")) for n in range(3)]
        await asyncio.sleep(0)
        modest = asyncio.ensure_future(submit(batcher, b"x", model="mine", owner="modest"))
        with pytest.raises(Overloaded):
            await greedy[0]
        assert [model for _, model in batcher._queues] == ["m1", "m2", "mine"]
        for call in (*greedy[1:], modest):
            call.cancel()


async def test_idle_queues_make_room_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "MAX_QUEUES", 2)
    async with dispatcher("127.0.0.1:1") as batcher:
        waiting = asyncio.ensure_future(submit(batcher, b"x", model="waits", owner="greedy"))
        with pytest.raises(DeadlineExceeded):
            await submit(batcher, b"x", model="idle", timeout=0.01)
        new = asyncio.ensure_future(submit(batcher, b"x", model="new"))
        await asyncio.sleep(0)
        assert [model for _, model in batcher._queues] == ["waits", "new"]
        for call in (waiting, new):
            call.cancel()


async def test_an_owner_holds_no_more_than_what_is_left_to_the_others() -> None:
    async with dispatcher("127.0.0.1:1", max_held_bytes=100_000) as batcher:
        greedy = [asyncio.ensure_future(submit(batcher, bytes(10_000), owner="greedy")) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="wait already"):
            await submit(batcher, bytes(10_000), owner="greedy")
        modest = asyncio.ensure_future(submit(batcher, bytes(10_000), owner="modest"))
        await asyncio.sleep(0)
        assert not modest.done()
        for call in (*greedy, modest):
            call.cancel()
        await asyncio.gather(*greedy, modest, return_exceptions=True)
        assert batcher.held._held == {}


async def test_a_fault_of_the_batchers_own_is_logged_once_and_its_streams_are_reopened_slowly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Fault(Exception):
        pass

    def fail(*_: object) -> None:
        raise Fault

    monkeypatch.setattr(model_queue.ModelQueue, "permitted", fail)
    handler = ScriptedHandler()
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        with pytest.raises(DeadlineExceeded, match="no worker serves model 'm' now: the batcher failed: Fault"):
            await submit(batcher, b"x", timeout=0.4)
        (queue,) = batcher._queues.values()
        assert (
            2 <= queue._streams[Priority.INTERACTIVE]._failures <= 2 + 5
        )  # two streams at first, then after 0.1, 0.2, 0.4 s
    lines = [record for record in caplog.records if record.levelno == logging.ERROR and record.exc_info]
    assert len([line for line in lines if "fault of the batcher" in line.getMessage()]) == 1


async def entered(batcher: Dispatcher, *messages: bytes) -> list[asyncio.Future[bytes]]:
    """Answers to requests that enter their queue together."""
    loop, now = asyncio.get_running_loop(), monotonic()
    queue = batcher.queue_of(METHOD, "m", "a")
    answers = [loop.create_future() for _ in messages]
    queue.enter(
        [
            Request(owner="a", arrived=now, deadline=now + 5, message=message, reply=partial(dispatch._settle, answer))
            for message, answer in zip(messages, answers, strict=True)
        ]
    )
    return answers


async def test_a_batch_that_cannot_be_sent_fails_alone_and_what_came_with_it_is_answered(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    send = BatchStream.send

    def faulty(stream: BatchStream, requests: Sequence[Request]) -> None:
        send(stream, requests)
        if any(request.message == b"bad" for request in requests):
            raise TypeError("no such message")

    monkeypatch.setattr(BatchStream, "send", faulty)
    handler = ScriptedHandler(BatchingSettings(max_batch_size=1, instance_count=4))
    handler.go.set()
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        await submit(batcher, b"first")
        (queue,) = batcher._queues.values()
        await until(lambda: queue._policy.idle_permits >= 2)
        answers = await entered(batcher, b"bad", b"good", b"bad", b"fine")
        bad, good, worse, fine = await asyncio.gather(*answers, return_exceptions=True)
        assert [good, fine] == [b"good", b"fine"]
        assert isinstance(bad, Internal)
        assert isinstance(worse, Internal)
        assert str(bad) == "the batcher failed: TypeError"
        assert queue.callers == 0
        assert await submit(batcher, b"again") == b"again"
    assert "couldn't be sent by a fault of the batcher's" in caplog.text


@pytest.mark.parametrize("fails", ["send", "close"])
async def test_mates_of_what_cannot_be_sent_or_closed_are_answered_by_another_stream(
    fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = 0

    def once(stream: BatchStream, *of: Any) -> None:
        nonlocal faults
        if (of and of[0][0].message != b"bad") or faults:
            return carried_out(stream, *of)
        faults += 1
        raise TypeError

    carried_out = getattr(BatchStream, fails)
    monkeypatch.setattr(BatchStream, fails, once)
    handler = ScriptedHandler(BatchingSettings(max_batch_size=2, max_queue_delay_microseconds=100_000))
    handler.go.set()
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        mate = asyncio.create_task(submit(batcher, b"mate"))
        assert (await handler.arrived.get()).request == b"mate"
        bad = asyncio.create_task(submit(batcher, b"bad"))
        assert await mate == b"mate"
        if fails == "send":
            with pytest.raises(Internal):
                await bad
        else:
            assert await bad == b"bad"
    assert faults == 1


async def test_a_caller_who_fails_at_being_told_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    def faulty(*_: object) -> None:
        raise KeyError

    handler = ScriptedHandler()
    handler.go.set()
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        now = monotonic()
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        batcher.queue_of(METHOD, "m", "a").enter(
            [
                Request(owner="a", arrived=now, deadline=now + 5, message=b"x", reply=reply)
                for reply in (faulty, partial(dispatch._settle, answer))
            ]
        )
        assert await answer == b"x"
    assert "a caller couldn't be told" in caplog.text


@pytest.mark.parametrize("tells", [True, False], ids=["today's worker", "older worker"])
async def test_how_long_batches_take_to_prepare_is_learned_from_workers_that_tell(*, tells: bool) -> None:
    handler = ScriptedHandler(ready_at=monotonic() if tells else 0.0)
    handler.go.set()
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        await submit(batcher, b"x")
        (queue,) = batcher._queues.values()
        assert bool(queue._policy._work.preparation) is tells


@pytest.mark.parametrize(("executed", "share"), [(0, 1.0), (1, 0.5), (6, 3.0)])
async def test_how_much_is_executed_of_what_is_sent_is_learned_from_workers_that_tell(
    executed: int, share: float
) -> None:
    handler = ScriptedHandler(executed=executed)
    handler.go.set()
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        await submit(batcher, b"warm")  # there are streams now
        (queue,) = batcher._queues.values()
        queue._policy._work.times = BatchTimes()
        queue._policy._closing.learned()
        await asyncio.gather(submit(batcher, b"x"), submit(batcher, b"y"))
        assert [len(each) for each in handler.batches] == [1, 2]
        assert queue._policy._work.times.share == share


async def test_a_status_that_grpc_does_not_know_fails_its_request_alone() -> None:
    def answer(item: batching_pb2.BatchItem) -> batching_pb2.BatchItemResult:
        if item.request == b"odd":
            return batching_pb2.BatchItemResult(index=item.index, code=99, message="?")
        return echo(item)

    handler = ScriptedHandler(answer=answer)
    handler.go.set()
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        odd, fine = await asyncio.gather(submit(batcher, b"odd"), submit(batcher, b"fine"), return_exceptions=True)
    assert isinstance(odd, Internal)
    assert fine == b"fine"


async def test_streams_beyond_what_is_of_use_are_closed_again() -> None:
    handler = ScriptedHandler(BatchingSettings(instance_count=8))
    async with scripted_worker({"m": handler}) as worker, dispatcher(worker.target) as batcher:
        calls = [asyncio.ensure_future(submit(batcher, bytes([n]))) for n in range(9)]
        for _ in calls:
            await handler.arrived.get()
        (queue,) = batcher._queues.values()
        wide = len(queue._streams[Priority.INTERACTIVE])
        handler.go.set()
        await asyncio.gather(*calls)
        for _ in range(2):  # periods in which nothing was in use
            queue._looking.cancel()
            queue._look()
        await until(lambda: len(queue._streams[Priority.INTERACTIVE]) == 2)
        assert wide >= 18
        assert await submit(batcher, b"x") == b"x"


async def test_neither_priority_shuts_out_the_other_at_a_worker_that_knows_none() -> None:
    """It grants permits to batchers in turn, and one that has enough of them, used or not, gets no more."""
    gate = PermitGate(2, idle_seconds=0.0)

    async def script(_: int, context: Context) -> None:
        asker = rpc.told(context)[BATCHER]
        permit = await gate.acquire(asker)
        try:
            await context.send_initial_metadata(((SETTINGS, ONE),))
            while items := await items_of_one_batch(context):
                permit.use()
                renewed = permit.renew()
                results = [batching_pb2.BatchItemResult(index=item.index, response=item.request) for item in items]
                await context.write(batching_pb2.BatchResultChunk(results=results, permit=renewed))
                if not renewed:
                    permit = await gate.acquire(asker)
                    await context.write(batching_pb2.BatchResultChunk(permit=True))
        finally:
            permit.release()

    async with raw_worker(script) as target, dispatcher(target) as batcher:
        for priority in (Priority.INTERACTIVE, Priority.BULK, Priority.INTERACTIVE, Priority.BULK):
            assert await batcher.submit(METHOD, "m", "a", b"x", 5.0, priority=priority) == b"x"


@pytest.mark.parametrize("engine_us", [0, 1000], ids=["nothing was executed", "answers follow"])
async def test_a_first_message_without_results_teaches_where_it_says_so(engine_us: int) -> None:
    tell = asyncio.Event()

    async def script(number: int, context: Context) -> None:
        await context.send_initial_metadata(((SETTINGS, FOUR),))
        if items := await items_of_one_batch(context):
            await context.write(batching_pb2.BatchResultChunk(permit=True, engine_us=engine_us))
            await context.write(batching_pb2.BatchResultChunk(results=[echo(item) for item in items]))
            await tell.wait()

    async with raw_worker(script) as target, dispatcher(target) as batcher:
        assert await asyncio.gather(*(submit(batcher, bytes([n])) for n in range(4))) == [b"\0", b"\1", b"\2", b"\3"]
        (queue,) = await queues(batcher)
        assert queue._policy._work.times.known is bool(engine_us)
        tell.set()


async def test_early_answers_are_not_a_batchs_first() -> None:
    """What they took says nothing of the engine, and their batch still fills."""
    all_told, tell = asyncio.Event(), asyncio.Event()
    asked: list[dict[str, str]] = []

    async def script(number: int, context: Context) -> None:
        asked.append(rpc.told(context))
        await context.send_initial_metadata(((SETTINGS, FOUR),))
        if items := await items_of_one_batch(context):
            for item in items[:2]:
                await context.write(batching_pb2.BatchResultChunk(results=[echo(item)], early=True))
            await all_told.wait()
            results = [echo(item) for item in items[2:]]
            await context.write(batching_pb2.BatchResultChunk(results=results, permit=True, engine_us=1))
            await tell.wait()

    async with raw_worker(script) as target, dispatcher(target) as batcher:
        calls = [asyncio.ensure_future(submit(batcher, bytes([n]))) for n in range(4)]
        assert await asyncio.gather(*calls[:2]) == [b"\0", b"\1"]
        (queue,) = await queues(batcher)
        assert queue.streams("in use") == 1
        assert not queue._policy._work.times.known
        all_told.set()
        assert await asyncio.gather(*calls[2:]) == [b"\2", b"\3"]
        assert queue.streams("in use") == 0
        assert queue._policy._work.times.known
        tell.set()
    assert all(told[TAKES] == "early" for told in asked)
