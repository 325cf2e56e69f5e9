"""A stream of calls, through a door of the test's own, a real dispatcher and a real batching service."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from shoal.batcher import call_stream
from shoal.batcher.core import Batcher, open_channel
from shoal.batcher.dispatch import Dispatcher
from shoal.batcher.door import GoneError
from shoal.batching import wire
from shoal.batching.v1 import batching_pb2, stream_pb2
from shoal.errors import Code, InvalidRequest, NotFound, Overloaded, Unauthenticated, Unavailable
from shoal.modelconfig.batching import BatchingSettings
from shoal.service.api_keys import Key
from shoal.service.identity import Identity
from support.scripted_batches import ScriptedHandler, scripted_worker
from support.until import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence


PATH = "/shoal.v1.Inference/ClassifyStream"
MANY = BatchingSettings(max_batch_size=32, max_queue_delay_microseconds=1_000)


class TestDoor:
    """The caller's side; None in ``asked`` half-closes, an exception is what reading raises."""

    __test__ = False
    cancels_reads = True

    def __init__(self) -> None:
        self.asked: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()
        self.chunks: list[stream_pb2.CallResultChunk] = []
        self.reads = asyncio.Event()
        """Whether the caller reads its results."""
        self.reads.set()

    async def read(self) -> bytes | None:
        message = await self.asked.get()
        if isinstance(message, Exception):
            raise message
        return message

    async def write(self, message: bytes) -> None:
        await self.reads.wait()
        self.chunks.append(stream_pb2.CallResultChunk.FromString(message))

    def ask(self, *messages: bytes, first: int = 0, timeout_us: int = 5_000_000) -> None:
        calls = (
            stream_pb2.CallItem(index=first + n, request=message, timeout_us=timeout_us)
            for n, message in enumerate(messages)
        )
        self.send(stream_pb2.CallChunk(calls=calls))

    def send(self, chunk: stream_pb2.CallChunk) -> None:
        self.asked.put_nowait(chunk.SerializeToString())

    def half_close(self) -> None:
        self.asked.put_nowait(None)

    @property
    def results(self) -> dict[int, stream_pb2.CallItemResult]:
        results = [result for chunk in self.chunks for result in chunk.results]
        assert len({result.index for result in results}) == len(results), "a call was answered twice"
        return {result.index: result for result in results}

    async def until_answered(self, *indices: int) -> list[stream_pb2.CallItemResult]:
        await until(lambda: set(indices) <= self.results.keys())
        return [self.results[index] for index in indices]


@contextlib.asynccontextmanager
async def batcher(*handlers: ScriptedHandler, max_held_bytes: int = 2**28) -> AsyncIterator[Batcher]:
    async with scripted_worker({f"m{n}" if n else "m": handler for n, handler in enumerate(handlers)}) as worker:
        dispatcher = Dispatcher(open_channel(worker.target), "test", 100, max_held_bytes)
        try:
            yield Batcher(dispatcher)
        finally:
            await dispatcher.close()
    assert dispatcher.held._held == {}
    assert dispatcher.in_flight == 0


@contextlib.asynccontextmanager
async def stream(to: Batcher, **headers: str) -> AsyncIterator[tuple[TestDoor, asyncio.Task[None]]]:
    door = TestDoor()
    named = {"x-model-name": "m", "x-client-id": "a"} | {name.replace("_", "-"): text for name, text in headers.items()}
    work = asyncio.ensure_future(to.stream(PATH, named, door))
    try:
        yield door, work
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


def running(settings: BatchingSettings = MANY) -> ScriptedHandler:
    handler = ScriptedHandler(settings)
    handler.go.set()
    return handler


def codes(results: Sequence[stream_pb2.CallItemResult]) -> list[Code]:
    return [Code(result.code) for result in results]


async def test_calls_are_answered_each_once_and_the_stream_ends_when_all_are() -> None:
    handler = running()
    async with batcher(handler) as to, stream(to) as (door, work):
        door.ask(*(bytes([n]) for n in range(40)))
        door.ask(*(bytes([n]) for n in range(40, 50)), first=100)
        door.half_close()
        await work
        assert {index: result.response for index, result in door.results.items()} == {
            **{n: bytes([n]) for n in range(40)},
            **{60 + n: bytes([n]) for n in range(40, 50)},
        }
    assert set(handler.methods) == {PATH.removesuffix("Stream")}


async def test_calls_of_streams_and_unary_calls_travel_in_the_same_batches() -> None:
    handler = running(BatchingSettings(max_batch_size=3, max_queue_delay_microseconds=60_000_000))
    async with batcher(handler) as to, stream(to) as (one, _), stream(to) as (other, _):
        one.ask(b"1")
        other.ask(b"2")
        answer = await to.call(PATH.removesuffix("Stream"), {"x-model-name": "m"}, b"3", 5.0)
        assert answer == b"3"
        assert (await one.until_answered(0))[0].response == b"1"
        assert (await other.until_answered(0))[0].response == b"2"
    assert [sorted(item.request for item in batch) for batch in handler.batches] == [[b"1", b"2", b"3"]]


async def test_a_time_without_end_is_one_that_fits_into_a_message_to_a_worker() -> None:
    handler = running(MANY)
    async with batcher(handler) as to, stream(to) as (door, _):
        door.ask(b"endless", timeout_us=2**64 - 1)
        assert (await door.until_answered(0))[0].response == b"endless"
    ((item,),) = handler.batches
    assert 0.9e15 < item.timeout_us <= 1e15


async def test_calls_name_what_they_have_in_common_and_too_long_a_name_is_none(
    affinities: list[str],
) -> None:
    async with batcher(running()) as to, stream(to) as (door, _):
        named = ("cat", "c" * 64, "c" * 65, "")
        calls = [stream_pb2.CallItem(index=n, affinity=text) for n, text in enumerate(named)]
        door.send(stream_pb2.CallChunk(calls=calls))
        await door.until_answered(0, 1, 2, 3)
    assert affinities == ["cat", "c" * 64, "", ""]


async def test_each_call_keeps_its_own_status_and_deadline() -> None:
    def answer(item: batching_pb2.BatchItem) -> batching_pb2.BatchItemResult:
        if item.request == b"bad":
            return batching_pb2.BatchItemResult(index=item.index, code=Code.INVALID_ARGUMENT, message="broken")
        return batching_pb2.BatchItemResult(index=item.index, response=b"fine")

    handler = running()
    handler.answer = answer
    handler.late = b"late"
    async with batcher(handler) as to, stream(to) as (door, _):
        door.ask(b"1", b"bad")
        door.ask(b"late", first=2, timeout_us=20_000)
        door.ask(b"2", bytes(70_000), first=3)
        results = await door.until_answered(0, 1, 2, 3, 4)
        assert codes(results) == [
            Code.OK,
            Code.INVALID_ARGUMENT,
            Code.DEADLINE_EXCEEDED,
            Code.OK,
            Code.INVALID_ARGUMENT,
        ]
        assert (results[1].message, results[0].response) == ("broken", b"fine")
        assert "larger than 65536" in results[4].message
        handler.late_go.set()


async def test_the_routers_times_hold_for_calls_that_name_none_or_too_much() -> None:
    handler = running(BatchingSettings(max_batch_size=1))
    async with batcher(handler) as to, stream(to, x_shoal_timeouts="7000000,9000000") as (door, _):
        for index, timeout_us in enumerate((0, 60_000_000, 8_000_000)):
            door.ask(b"x", first=index, timeout_us=timeout_us)
            await door.until_answered(index)
    assert [round((item.timeout_us + item.queued_us) / 1e6) for (item,) in handler.batches] == [7, 9, 8]


async def test_a_withdrawn_call_gets_no_result_and_its_worker_is_told() -> None:
    handler = ScriptedHandler(BatchingSettings(max_batch_size=2))
    async with batcher(handler) as to, stream(to) as (door, _):
        door.ask(b"stays", b"goes")
        for _ in range(2):
            await handler.arrived.get()
        door.send(stream_pb2.CallChunk(withdrawn=[1, 1, 77]))
        assert await handler.withdrawn.get() == 1
        handler.go.set()
        await door.until_answered(0)
        door.half_close()
        await until(lambda: not to.dispatcher.in_flight)
        assert list(door.results) == [0]


async def test_a_call_may_be_withdrawn_in_the_message_that_brings_it() -> None:
    async with batcher(running()) as to, stream(to) as (door, work):
        calls = [stream_pb2.CallItem(index=0, request=b"x")]
        door.send(stream_pb2.CallChunk(calls=calls, withdrawn=[0]))
        door.half_close()
        await work
        assert not door.results


async def test_a_caller_who_leaves_withdraws_all_that_is_in_flight() -> None:
    handler = ScriptedHandler(BatchingSettings(max_batch_size=2))
    async with batcher(handler) as to, stream(to) as (door, work):
        door.ask(b"1", b"2")
        for _ in range(2):
            await handler.arrived.get()
        door.asked.put_nowait(GoneError())
        with pytest.raises(GoneError):
            await work
        assert {await handler.withdrawn.get() for _ in range(2)} == {0, 1}
        (queue,) = to.dispatcher._queues.values()
        assert (queue.callers, queue.queued) == (0, 0)
        handler.go.set()


@pytest.mark.parametrize(
    ("chunk", "reason"),
    [
        (b"\xff", "CallChunk"),
        (stream_pb2.CallChunk(calls=[stream_pb2.CallItem(index=n) for n in (4, 4)]), "call 4 comes after call 4"),
        (stream_pb2.CallChunk(calls=[stream_pb2.CallItem(index=n) for n in (4, 3)]), "call 3 comes after call 4"),
        (stream_pb2.CallChunk(calls=[stream_pb2.CallItem(index=n) for n in range(1025)]), "calls: .* 1025"),
        (stream_pb2.CallChunk(withdrawn=range(1025)), "withdrawn: .* 1025"),
    ],
    ids=["no message", "an index twice", "an index backwards", "too many", "too many withdrawn"],
)
async def test_what_makes_no_sense_ends_the_stream_and_says_why(
    chunk: bytes | stream_pb2.CallChunk, reason: str
) -> None:
    async with batcher(running()) as to, stream(to) as (door, work):
        door.asked.put_nowait(chunk if isinstance(chunk, bytes) else chunk.SerializeToString())
        with pytest.raises(InvalidRequest, match=reason):
            await work


async def test_indices_count_up_over_the_whole_stream() -> None:
    async with batcher(running()) as to, stream(to) as (door, work):
        door.ask(b"x", first=7)
        await door.until_answered(7)
        door.ask(b"x", first=7)
        with pytest.raises(InvalidRequest, match="call 7 comes after call 7"):
            await work


async def test_a_full_stream_is_not_read_until_results_have_left() -> None:
    handler = ScriptedHandler(MANY)
    async with batcher(handler) as to, stream(to) as (door, _):
        for first in range(0, 3 * wire.STREAM_CALLS, 512):
            door.ask(*[b"x"] * 512, first=first)
        await until(lambda: door.asked.qsize() == 4)
        handler.go.set()
        await until(lambda: len(door.results) == 3 * wire.STREAM_CALLS)


async def test_a_caller_who_does_not_read_is_not_read() -> None:
    async with batcher(running()) as to, stream(to) as (door, _), stream(to) as (other, _):
        door.reads.clear()
        for first in range(0, 4 * wire.STREAM_CALLS, 512):
            door.ask(*[b"x"] * 512, first=first)
        await until(lambda: door.asked.qsize() <= 6)
        other.ask(b"y")
        await other.until_answered(0)
        assert door.asked.qsize() >= 5
        door.reads.set()
        await until(lambda: len(door.results) == 4 * wire.STREAM_CALLS)


@pytest.mark.parametrize("first", [0, 1], ids=["at once", "while one is being written"])
async def test_results_that_nobody_reads_are_bounded_in_bytes(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_stream, "UNREAD_BYTES", 2**10)
    handler = running()
    handler.answer = lambda item: batching_pb2.BatchItemResult(index=item.index, response=bytes(2**19))
    async with batcher(handler, max_held_bytes=2**23) as to, stream(to) as (door, work):
        door.reads.clear()
        door.ask(*[b"x"] * first)
        await until(lambda: len(handler.batches) == first)
        door.ask(*[b"x"] * 32, first=first)
        await until(
            lambda: len(handler.batches) > first and to.dispatcher.held._held.get("a", 0) <= call_stream.STREAM_BYTES
        )
        door.reads.set()
        with pytest.raises(Overloaded, match="MiB of results wait to be read"):
            await work


async def test_a_large_result_travels_in_a_message_of_its_own() -> None:
    handler = running()
    handler.answer = lambda item: batching_pb2.BatchItemResult(index=item.index, response=bytes(3 * 2**20))
    async with batcher(handler) as to, stream(to) as (door, _):
        door.ask(*[b"x"] * 6)
        await door.until_answered(*range(6))
        assert all(chunk.ByteSize() <= wire.RESULTS_BYTES + 1000 for chunk in door.chunks)


async def test_a_keys_rate_counts_calls_and_not_streams() -> None:
    key = Key(id="key-1", key="k" * 43, owner="a", requests_per_second=5)
    word = Identity.of(key).write()
    async with batcher(running()) as to, stream(to, x_api_key=word) as (one, _), stream(to, x_api_key=word) as (two, _):
        one.ask(*[b"x"] * 4)
        await one.until_answered(*range(4))
        two.ask(*[b"x"] * 4)
        results = await two.until_answered(*range(4))
    assert codes(results).count(Code.RESOURCE_EXHAUSTED) == 3
    limited = results[-1]
    assert "rate limit" in limited.message
    assert 0 < limited.retry_after_us <= 1_000_000


async def test_unary_calls_use_up_the_rate_that_streams_share() -> None:
    key = Key(id="key-1", key="k" * 43, owner="a", requests_per_second=2)
    headers = {"x-model-name": "m", "x-api-key": Identity.of(key).write()}
    async with batcher(running()) as to, stream(to, x_api_key=headers["x-api-key"]) as (door, _):
        for _ in range(2):
            await to.call(PATH.removesuffix("Stream"), headers, b"x", 5.0)
        door.ask(b"x")
        assert codes(await door.until_answered(0)) == [Code.RESOURCE_EXHAUSTED]


async def test_an_owner_who_holds_its_share_is_refused_call_by_call() -> None:
    handler = ScriptedHandler(MANY)
    async with (
        batcher(handler, max_held_bytes=2**20) as to,
        stream(to) as (door, _),
        stream(to, x_client_id="b") as (
            other,
            _,
        ),
    ):
        door.ask(*[bytes(30_000)] * 30)
        await until(lambda: door.results)
        refused = list(door.results.values())
        assert set(codes(refused)) == {Code.RESOURCE_EXHAUSTED}
        other.ask(b"x")
        handler.go.set()
        assert codes(await other.until_answered(0)) == [Code.OK]
        await until(lambda: len(door.results) == 30)
        assert 0 < len(refused) < 30


async def test_an_owner_opens_only_so_many_streams() -> None:
    async with (
        batcher(running(), max_held_bytes=4 * call_stream.STREAM_BYTES) as to,
        contextlib.AsyncExitStack() as all_,
    ):
        opened = [await all_.enter_async_context(stream(to)) for _ in range(3)]
        await until(opened[2][1].done)
        with pytest.raises(Overloaded):
            await opened[2][1]
        door, _ = await all_.enter_async_context(stream(to, x_client_id="b"))
        door.ask(b"x")
        await door.until_answered(0)


async def test_a_drain_answers_what_is_in_flight_tells_and_ends() -> None:
    handler = ScriptedHandler(BatchingSettings(max_batch_size=8))
    async with batcher(handler) as to, stream(to) as (door, work), stream(to) as (idle, idles):
        door.ask(b"1", b"2")
        for _ in range(2):
            await handler.arrived.get()
        to.drain()
        await until(lambda: any(chunk.draining for chunk in door.chunks))
        door.ask(b"3", first=2)
        (refused,) = await door.until_answered(2)
        assert (Code(refused.code), "another stream" in refused.message) == (Code.UNAVAILABLE, True)
        with pytest.raises(Unavailable):
            await idles
        assert idle.chunks[0].draining
        handler.go.set()
        with pytest.raises(Unavailable):
            await work
        assert codes([door.results[0], door.results[1]]) == [Code.OK, Code.OK]
        with pytest.raises(Unavailable):
            await to.stream(PATH, {"x-model-name": "m"}, TestDoor())


async def test_a_stream_that_is_failed_from_outside_ends_and_withdraws_its_calls() -> None:
    handler = ScriptedHandler(BatchingSettings(max_batch_size=2))
    async with batcher(handler) as to, stream(to) as (door, work):
        door.ask(b"1", b"2")
        for _ in range(2):
            await handler.arrived.get()
        (opened,) = to._streams
        opened.fail(Unauthenticated("the key was revoked"))
        with pytest.raises(Unauthenticated):
            await work
        assert {await handler.withdrawn.get() for _ in range(2)} == {0, 1}
        handler.go.set()


async def test_a_stream_ends_when_its_key_is_gone_and_no_other_does() -> None:
    class Keys:
        """Tells of a key what the test wants it to."""

        def __init__(self) -> None:
            self.followed: dict[str, Callable[[], None]] = {}

        def follow(self, identity: str, model: str, revoked: Callable[[], None]) -> Callable[[], object]:
            assert model == "m"
            self.followed[identity] = revoked
            return lambda: self.followed.pop(identity)

    keys: Any = Keys()
    words = [Identity.of(Key(id=f"key-{n}", key=f"{n}" * 43, owner="a")).write() for n in range(2)]
    async with batcher(running()) as plain:
        to = Batcher(plain.dispatcher, keys=keys)
        async with stream(to, x_api_key=words[0]) as (one, work), stream(to, x_api_key=words[1]) as (other, _):
            for door in (one, other):
                door.ask(b"1")
                await door.until_answered(0)
            keys.followed[words[0]]()
            with pytest.raises(Unauthenticated, match="revoked"):
                await work
            assert list(keys.followed) == words[1:]
            other.ask(b"2", first=1)
            await other.until_answered(1)
        assert not keys.followed


async def test_a_model_that_no_worker_has_is_said_of_each_call() -> None:
    async with batcher(running()) as to, stream(to, x_model_name="nobodys") as (door, _):
        door.ask(b"1", timeout_us=50_000)
        (result,) = await door.until_answered(0)
        assert result.code in {Code.DEADLINE_EXCEEDED, Code.UNAVAILABLE}


async def test_a_stream_needs_a_model_that_is_served() -> None:
    async with batcher(running()) as to:
        only = Batcher(to.dispatcher, models=["m"])
        with pytest.raises(NotFound):
            await only.stream(PATH, {"x-model-name": "other"}, TestDoor())
        with pytest.raises(InvalidRequest, match="x-model-name"):
            await to.stream(PATH, {}, TestDoor())


async def test_priority_travels_with_each_call() -> None:
    handler = running(BatchingSettings(max_batch_size=1))
    async with batcher(handler) as to, stream(to, x_priority="bulk") as (bulk, _), stream(to) as (plain, _):
        bulk.ask(b"bulk")
        plain.ask(b"plain")
        await bulk.until_answered(0)
        await plain.until_answered(0)
        told = {request.message: request.view(0.0).priority for request in to.dispatcher.recent.newest_first()}
    assert told == {b"bulk": "bulk", b"plain": "interactive"}
    sent: dict[bytes, Any] = {item.request: item.priority for (item,) in handler.batches}
    assert sent == {b"bulk": batching_pb2.PRIORITY_BULK, b"plain": batching_pb2.PRIORITY_INTERACTIVE}


def of_a_pipeline() -> str:
    key = Key(id="key-1", key="k" * 24, owner="a", requests_per_second=1.0)
    return Identity.of(key).by_pipeline("street", "a/", "proof").write()


async def test_a_pipelines_calls_go_on_while_the_batcher_drains_and_hold_up_nothing() -> None:
    """What is in flight here may wait for them, so that a drain without them would wait for its end."""
    async with (
        batcher(running()) as to,
        stream(to, x_api_key=of_a_pipeline()) as (door, work),
        stream(to) as (other, _),
    ):
        door.ask(b"x")
        await door.until_answered(0)
        to.drain()
        await until(lambda: any(chunk.draining for chunk in other.chunks))
        assert not any(chunk.draining for chunk in door.chunks)
        door.ask(b"y", first=1)
        assert codes(await door.until_answered(1)) == [Code.OK]
        await until(lambda: to.dispatcher.in_flight == 0)
        assert not work.done()
        async with stream(to, x_api_key=of_a_pipeline()) as (later, _):
            later.ask(b"z")
            assert codes(await later.until_answered(0)) == [Code.OK]
        async with stream(to) as (_, refused):
            with pytest.raises(Unavailable):
                await refused


async def test_a_pipelines_calls_count_for_no_rate() -> None:
    async with batcher(running()) as to, stream(to, x_api_key=of_a_pipeline()) as (door, _):
        door.ask(*[b"x"] * 20)
        assert codes(await door.until_answered(*range(20))) == [Code.OK] * 20
