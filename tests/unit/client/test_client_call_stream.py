"""What can't be brought about through a real connection: a writer that is held up."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from shoal.batching.v1 import stream_pb2
from shoal.client.call_stream import CallStream
from shoal.client.calls import Call
from shoal.client.stream_limits import StreamLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from shoal.client.stream_end import End

LIMITS = StreamLimits(chunk_bytes=1)
"""A message a call."""


class HeldUp:
    """gRPC's end of a stream, whose messages leave as ``windows`` opens."""

    def __init__(self) -> None:
        self.windows = asyncio.Semaphore(0)
        self.written: list[stream_pb2.CallChunk] = []
        self.writing = 0
        self.half_closed = asyncio.Event()
        self.incoming: asyncio.Queue[Any] = asyncio.Queue()
        self._cancelled = False

    async def initial_metadata(self) -> tuple[()]:
        return ()

    async def write(self, chunk: stream_pb2.CallChunk) -> None:
        self.writing += 1
        assert self.writing == 1, "writes pile up"
        await self.windows.acquire()
        self.written.append(chunk)
        self.writing -= 1

    async def read(self) -> Any:
        return await self.incoming.get()

    async def done_writing(self) -> None:
        self.half_closed.set()

    def done(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        self._cancelled = True

    async def trailing_metadata(self) -> tuple[()]:
        return ()

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    async def details(self) -> str:
        return ""


class Listener:
    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.unsent: list[Call] = []
        self.ends: list[End] = []

    def opened(self, _stream: CallStream) -> None:
        self.is_open.set()

    def freed(self) -> None:
        pass

    def aged(self, _stream: CallStream) -> None:
        pass

    def ending(self, _stream: CallStream, unsent: Iterable[Call]) -> None:
        self.unsent = list(unsent)

    def ended(self, _stream: CallStream, end: End) -> None:
        self.ends.append(end)


class World:
    def __init__(self) -> None:
        self.call = HeldUp()
        self.listener = Listener()
        self.stream = CallStream(lambda: self.call, self.listener, LIMITS, time.monotonic)  # type: ignore[arg-type, return-value]

    def send(self, number: int) -> list[Call]:
        loop = asyncio.get_running_loop()
        calls = [Call(b"%d" % n, time.monotonic() + 60, loop.create_future()) for n in range(number)]
        self.stream.send(calls)
        return calls

    async def tell(self, *indices: int, draining: bool = False) -> None:
        """A message comes in, and is read."""
        results = [stream_pb2.CallItemResult(index=index, response=b"%d" % index) for index in indices]
        await self.call.incoming.put(stream_pb2.CallResultChunk(results=results, draining=draining))
        while not self.call.incoming.empty():
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def let_out(self, messages: int) -> None:
        for _ in range(messages):
            self.call.windows.release()
        while self.call.windows._value or (self.call.writing == 0 and self.stream._outbox):
            await asyncio.sleep(0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.listener.is_open.wait()
    yield made
    made.stream.abandon()
    await asyncio.gather(made.stream.task, return_exceptions=True)
    assert len(made.listener.ends) == 1


async def test_one_message_is_written_at_a_time(world: World) -> None:
    world.send(5)
    await world.let_out(3)
    assert [call.index for chunk in world.call.written for call in chunk.calls] == [0, 1, 2]
    assert (world.call.writing, len(world.stream._outbox)) == (1, 1)


async def test_a_result_that_comes_before_its_call_was_written_is_skipped(world: World) -> None:
    calls = world.send(5)
    await world.let_out(1)
    await world.tell(0, 4)
    assert [call.answer.done() for call in calls] == [True, False, False, False, False]
    await world.let_out(4)
    await world.tell(4)
    assert calls[4].answer.done()


async def test_what_was_not_written_when_the_service_drains_is_given_back(world: World) -> None:
    calls = world.send(5)
    await world.let_out(1)
    await world.tell(draining=True)
    assert world.listener.unsent == calls[2:]  # the second is being written
    assert world.stream.in_flight == calls[:2]
    await world.let_out(1)
    await world.call.half_closed.wait()
    await world.tell(0, 1)
    assert [call.answer.done() for call in calls] == [True, True, False, False, False]


async def test_what_was_given_to_a_stream_before_it_retires_is_written(world: World) -> None:
    world.send(3)
    await world.let_out(1)
    world.stream.retire()
    assert world.stream.room == 0
    await world.let_out(2)
    await world.call.half_closed.wait()
    assert [call.index for chunk in world.call.written for call in chunk.calls] == [0, 1, 2]


async def test_a_call_left_while_its_message_is_written_is_withdrawn_in_the_next(world: World) -> None:
    calls = world.send(3)
    await world.let_out(1)
    for call in (calls[1], calls[2]):  # on its way, and not written
        call.answer.cancel()
        assert call.left is not None
        call.left(call)
    await world.let_out(2)
    assert [(list(chunk.withdrawn), len(chunk.calls)) for chunk in world.call.written] == [([], 1), ([], 1), ([1], 0)]


async def test_a_retiring_stream_that_nobody_waits_for_is_ended(world: World) -> None:
    (call,) = world.send(1)
    await world.let_out(1)
    world.stream.retire()
    call.answer.cancel()
    assert call.left is not None
    call.left(call)
    await asyncio.gather(world.stream.task, return_exceptions=True)
    assert world.call.done()
