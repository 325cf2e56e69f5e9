"""Streams of calls at the batcher's process, through each of its doors, before a real batching service."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest

from shoal.batching.v1 import stream_pb2
from shoal.errors import Code
from shoal.modelconfig.batching import BatchingSettings
from support.batcher_process import METADATA, batcher
from support.scripted_batches import ScriptedHandler, scripted_worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.batcher_process import BatcherProcess

    Call = grpc.aio.StreamStreamCall[stream_pb2.CallChunk, stream_pb2.CallResultChunk]

SETTINGS = BatchingSettings(max_batch_size=32, max_queue_delay_microseconds=2_000)


@pytest.fixture(params=["envoy", "grpcio"])
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def running() -> ScriptedHandler:
    handler = ScriptedHandler(SETTINGS)
    handler.go.set()
    return handler


@contextlib.asynccontextmanager
async def served(door: str, handler: ScriptedHandler) -> AsyncIterator[BatcherProcess]:
    async with (
        scripted_worker({"m": handler}) as worker,
        batcher(door, "--worker", worker.target, "--model", "m") as b,
    ):
        yield b


def opened(
    b: BatcherProcess, metadata: tuple[tuple[str, str], ...] = METADATA, channel: grpc.aio.Channel | None = None
) -> Call:
    open_stream = (channel or b.channel).stream_stream(
        "/any.Service/MethodStream",
        request_serializer=stream_pb2.CallChunk.SerializeToString,
        response_deserializer=stream_pb2.CallResultChunk.FromString,
    )
    return open_stream(metadata=metadata)


def chunk(first: int, count: int, message: bytes = b"x") -> stream_pb2.CallChunk:
    calls = (stream_pb2.CallItem(index=first + n, request=message, timeout_us=60_000_000) for n in range(count))
    return stream_pb2.CallChunk(calls=calls)


async def results(call: Call, count: int) -> list[stream_pb2.CallItemResult]:
    found: list[stream_pb2.CallItemResult] = []
    while len(found) < count:
        message = await call.read()
        assert isinstance(message, stream_pb2.CallResultChunk), (await call.code(), await call.details())
        found += message.results
    return found


async def end(call: Call) -> tuple[grpc.StatusCode, str]:
    """Reads to the end; its status."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError:
        pass
    return await call.code(), await call.details() or ""


async def test_calls_go_both_ways_at_once_and_half_closing_ends_the_stream(door: str) -> None:
    async with (
        scripted_worker({"m": running()}) as worker,
        batcher(door, "--worker", worker.target, "--model", "m") as b,
    ):
        call = opened(b)
        await call.initial_metadata()  # before anything is sent
        for first in range(0, 2000, 500):
            await call.write(chunk(first, 500))
            assert {result.code for result in await results(call, 500)} == {Code.OK}
        await call.write(chunk(5000, 100))
        await call.done_writing()
        assert {result.index for result in await results(call, 100)} == set(range(5000, 5100))
        assert await end(call) == (grpc.StatusCode.OK, "")


async def test_large_messages_arrive_whole(door: str) -> None:
    handler = running()
    async with served(door, handler) as b:
        call = opened(b)
        messages = [bytes([n]) * 60_000 for n in range(17)]
        calls = [stream_pb2.CallItem(index=n, request=message) for n, message in enumerate(messages)]
        await call.write(stream_pb2.CallChunk(calls=calls))
        answers = {result.index: result.response for result in await results(call, 17)}
    assert answers == dict(enumerate(messages))


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        (b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT, "CallChunk"),
        (stream_pb2.CallChunk(calls=[stream_pb2.CallItem(index=3)] * 2).SerializeToString(), None, "must count up"),
    ],
    ids=["no message", "an index twice"],
)
async def test_what_makes_no_sense_ends_the_stream_with_its_reason(
    door: str, message: bytes, code: grpc.StatusCode | None, reason: str
) -> None:
    async with (
        scripted_worker({"m": running()}) as worker,
        batcher(door, "--worker", worker.target, "--model", "m") as b,
    ):
        raw = b.channel.stream_stream("/any.Service/MethodStream")(metadata=METADATA)
        await raw.write(message)
        ended, details = await end(raw)
    assert ended is (code or grpc.StatusCode.INVALID_ARGUMENT)
    assert reason in details


async def test_a_message_that_is_far_too_large_ends_the_stream(door: str) -> None:
    async with (
        scripted_worker({"m": running()}) as worker,
        batcher(door, "--worker", worker.target, "--model", "m") as b,
    ):
        call = opened(b)
        await call.write(chunk(0, 100, bytes(20_000)))
        code, _ = await end(call)
        assert code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert await b.ask(b"unary") == b"unary"


async def test_a_caller_who_leaves_has_its_calls_withdrawn(door: str) -> None:
    handler = ScriptedHandler(SETTINGS)
    async with served(door, handler) as b:
        call = opened(b)
        await call.write(chunk(0, 3))
        for _ in range(3):
            await handler.arrived.get()
        call.cancel()
        async with asyncio.timeout(60):
            assert {await handler.withdrawn.get() for _ in range(3)} == {0, 1, 2}
        handler.go.set()


async def test_one_who_half_closes_and_leaves_too(door: str) -> None:
    handler = ScriptedHandler(SETTINGS)
    async with served(door, handler) as b:
        call = opened(b)
        await call.write(chunk(0, 2))
        await call.done_writing()
        for _ in range(2):
            await handler.arrived.get()
        call.cancel()
        async with asyncio.timeout(60):
            assert {await handler.withdrawn.get() for _ in range(2)} == {0, 1}
        handler.go.set()


async def test_a_caller_who_never_reads_harms_nobody_and_costs_bounded_memory(door: str) -> None:
    handler = running()
    own_connection = (("grpc.use_local_subchannel_pool", 1),)  # as the router has one for streams
    async with served(door, handler) as b, grpc.aio.insecure_channel(b.listen, own_connection) as channel:
        process = psutil.Process(b.process.pid)
        lazy = [opened(b, channel=channel) for _ in range(4)]
        written = [0] * len(lazy)

        async def flood(number: int) -> None:
            while True:
                await lazy[number].write(chunk(written[number], 256, bytes(2_000)))
                written[number] += 256

        await b.ask(b"warm")
        before = memory(process)
        floods = [asyncio.ensure_future(flood(number)) for number in range(len(lazy))]
        seen = [-1] * len(lazy)
        while seen != written:  # until nobody gets on
            seen = list(written)
            for n in range(50):
                assert await b.ask(b"%d" % n) == b"%d" % n
            await asyncio.sleep(0.2)
        assert memory(process) - before < 200 * 2**20
        for each in floods:
            each.cancel()
        await asyncio.gather(*floods, return_exceptions=True)


def memory(process: psutil.Process) -> int:
    """Bytes of a process and its children."""
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))


async def test_sigterm_answers_what_is_in_flight_and_ends_idle_streams(door: str) -> None:
    handler = ScriptedHandler(SETTINGS)
    async with served(door, handler) as b:
        busy, idle = opened(b), opened(b)
        await idle.initial_metadata()
        await busy.write(chunk(0, 40))
        for _ in range(40):
            await handler.arrived.get()
        b.process.send_signal(signal.SIGTERM)
        told = await busy.read()
        assert isinstance(told, stream_pb2.CallResultChunk)
        assert told.draining
        assert (await end(idle))[0] is grpc.StatusCode.UNAVAILABLE
        handler.go.set()
        assert len(await results(busy, 40)) == 40
        assert (await end(busy))[0] is grpc.StatusCode.UNAVAILABLE
        await asyncio.wait_for(b.process.wait(), 60)


async def test_a_stream_for_a_model_that_is_not_served_is_refused(door: str) -> None:
    async with (
        scripted_worker({"m": running()}) as worker,
        batcher(door, "--worker", worker.target, "--model", "m") as b,
    ):
        code, details = await end(opened(b, (("x-model-name", "other"),)))
        assert (code, details) == (grpc.StatusCode.NOT_FOUND, "no model 'other' is served here")
        code, details = await end(opened(b, (*METADATA, ("x-priority", "urgent"))))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "x-priority 'urgent'" in details
