"""A real gRPC server of calls and streams of calls: a test sees what came, and says what goes back."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from shoal.batching.v1 import stream_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    Context = grpc.aio.ServicerContext[Any, Any]

_STATUS = {status.value[0]: status for status in grpc.StatusCode}


class ServedStream:
    """One stream as the service sees it."""

    def __init__(self, context: Context, reads: asyncio.Event, reply: Callable[[bytes], bytes]) -> None:
        self.metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        self.messages: list[list[int]] = []
        """The indices of each message's calls."""
        self.withdrawn: list[int] = []
        self.half_closed = asyncio.Event()
        self.gone = asyncio.Event()
        """Set once the handler has ended, whoever ended it."""
        self._context = context
        self._reads = reads
        self._reply = reply
        self._calls: asyncio.Queue[stream_pb2.CallItem] = asyncio.Queue()
        self._changed = asyncio.Condition()
        self._end: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    async def take(self, number: int = 1) -> list[stream_pb2.CallItem]:
        """The next calls, in the order in which they came."""
        return [await self._calls.get() for _ in range(number)]

    async def left(self, number: int = 1) -> list[int]:
        """What was withdrawn, once it is ``number`` of calls."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.withdrawn) >= number)
        return self.withdrawn

    async def send(self, *results: stream_pb2.CallItemResult, draining: bool = False) -> None:
        """One message."""
        await self._context.write(stream_pb2.CallResultChunk(results=results, draining=draining))

    async def answer(self, calls: Iterable[stream_pb2.CallItem]) -> None:
        """Answers each, in one message."""
        await self.send(
            *(stream_pb2.CallItemResult(index=call.index, response=self._reply(call.request)) for call in calls)
        )

    def end(self, code: int = 0, text: str = "") -> None:
        """Ends the stream."""
        if not self._end.done():
            self._end.set_result((code, text))

    async def serve(self) -> None:
        reader = asyncio.create_task(self._read())
        try:
            code, text = await self._end
        finally:
            reader.cancel()
            self.gone.set()
        if code:
            await self._context.abort(_STATUS[code], text)

    async def _read(self) -> None:
        while isinstance(chunk := await self._next(), stream_pb2.CallChunk):
            if chunk.calls:
                self.messages.append([call.index for call in chunk.calls])
            for call in chunk.calls:
                self._calls.put_nowait(call)
            async with self._changed:
                self.withdrawn.extend(chunk.withdrawn)
                self._changed.notify_all()
        self.half_closed.set()

    async def _next(self) -> object:
        await self._reads.wait()
        return await self._context.read()


@dataclass
class StreamService:
    """Answers unary calls once ``gate`` is set; a test answers streams, or ``echo`` does."""

    reply: Callable[[bytes], bytes] = bytes
    """The answer to a request; without another, the request itself."""

    refuses: int = 0
    """A status code for each new stream."""
    silent: bool = False
    """Says nothing to a new stream, as a batcher does that waits for a unary call's end."""
    echo: bool = False
    """Answers all calls of streams at once."""
    unary: list[bytes] = field(default_factory=list)
    unary_metadata: list[dict[str, str]] = field(default_factory=list)
    asked: int = 0
    """Streams that were asked for, refused ones among them."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    reads: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared: streams are accepted and not read, but for one message that a read waits for already."""
    target: str = ""
    _opened: asyncio.Queue[ServedStream] = field(default_factory=asyncio.Queue)
    _came: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self.gate.set()
        self.reads.set()

    async def stream(self) -> ServedStream:
        """The next stream that was opened."""
        return await self._opened.get()

    @property
    def waiting(self) -> int:
        """Streams that were opened and not looked at."""
        return self._opened.qsize()

    async def came(self, number: int) -> None:
        """Returns once so many unary calls are here."""
        async with self._came:
            await self._came.wait_for(lambda: len(self.unary) >= number)

    async def _unary(self, message: bytes, context: Context) -> bytes:
        async with self._came:
            self.unary.append(message)
            self.unary_metadata.append({key: str(value) for key, value in context.invocation_metadata() or ()})
            self._came.notify_all()
        await self.gate.wait()
        return self.reply(message)

    async def _stream(self, _: object, context: Context) -> None:
        self.asked += 1
        if self.refuses:
            await context.abort(_STATUS[self.refuses], "scripted")
        if self.silent:
            await asyncio.Event().wait()
        await context.send_initial_metadata(())
        served = ServedStream(context, self.reads, self.reply)
        self._opened.put_nowait(served)
        answering = asyncio.create_task(self._answer(served)) if self.echo else None
        try:
            await served.serve()
        finally:
            if answering is not None:
                answering.cancel()

    async def _answer(self, served: ServedStream) -> None:
        while True:
            calls = await served.take()
            calls += await served.take(served._calls.qsize())
            await served.answer(calls)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        methods = {
            "Classify": grpc.unary_unary_rpc_method_handler(self._unary),
            "ClassifyStream": grpc.stream_stream_rpc_method_handler(
                self._stream, stream_pb2.CallChunk.FromString, stream_pb2.CallResultChunk.SerializeToString
            ),
        }
        return [grpc.method_handlers_generic_handler("shoal.v1.Inference", methods)]


@asynccontextmanager
async def serving_streams(service: StreamService | None = None, port: int = 0) -> AsyncIterator[StreamService]:
    """Serves from the running loop, on ``port`` (0: a free one)."""
    service = service or StreamService()
    server = grpc.aio.server(handlers=service.handlers(), options=[("grpc.max_receive_message_length", 2**24)])
    service.target = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    await server.start()
    try:
        yield service
    finally:
        await server.stop(0)
