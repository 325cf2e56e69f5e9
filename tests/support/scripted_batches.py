"""A small real batching service: it answers each item as a script says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import grpc

from shoal.batching.service import BatchingService
from shoal.batching.v1 import batching_pb2
from shoal.errors import InvalidRequest
from shoal.modelconfig.batching import BatchingSettings
from shoal.runtime.priority import Priority

Answer = Callable[[batching_pb2.BatchItem], batching_pb2.BatchItemResult]


def echo(item: batching_pb2.BatchItem) -> batching_pb2.BatchItemResult:
    """Answers the request's own bytes."""
    return batching_pb2.BatchItemResult(index=item.index, response=item.request)


SETTINGS = BatchingSettings(max_batch_size=4, max_queue_delay_microseconds=1_000)


@dataclass
class ScriptedHandler:
    """Keeps the batches that came; holds their results while ``go`` is not set."""

    settings: BatchingSettings = SETTINGS
    answer: Answer = echo
    go: asyncio.Event = field(default_factory=asyncio.Event)
    late: bytes = b""
    """A request like this is a straggler: it is answered after the others, when ``late_go`` is set."""
    early: bytes = b""
    """A request like this is answered at once, where the batcher takes that."""
    late_go: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Queue[batching_pb2.BatchItem] = field(default_factory=asyncio.Queue)
    batches: list[list[batching_pb2.BatchItem]] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    priorities: list[Priority] = field(default_factory=list)
    abandoned: int = 0
    withdrawn: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    refuses: str = ""
    """A method."""
    ready_at: float = 0.0
    executed: int = 0
    put_off: int = 0
    """What its batches say of themselves."""

    def check(self, method: str) -> None:
        if self.refuses == method:
            raise InvalidRequest(f"call something else than {method}")

    def begin(self, method: str, priority: Priority = Priority.INTERACTIVE) -> ScriptedBatch:
        self.methods.append(method)
        self.priorities.append(priority)
        return ScriptedBatch(self)


class ScriptedBatch:
    def __init__(self, handler: ScriptedHandler) -> None:
        self._handler = handler
        self._items: list[batching_pb2.BatchItem] = []
        self._tell: Callable[[Sequence[batching_pb2.BatchItemResult]], None] | None = None

    @property
    def ready_at(self) -> float:
        return self._handler.ready_at

    @property
    def executed(self) -> int:
        return self._handler.executed

    @property
    def put_off(self) -> int:
        return self._handler.put_off

    def add(self, *items: batching_pb2.BatchItem) -> None:
        for item in items:
            if self._tell is not None and item.request == self._handler.early:
                self._tell([self._handler.answer(item)])
            else:
                self._items.append(item)
            self._handler.arrived.put_nowait(item)

    def tell_early(self, tell: Callable[[Sequence[batching_pb2.BatchItemResult]], None]) -> None:
        self._tell = tell

    async def finish(self) -> AsyncIterator[Sequence[batching_pb2.BatchItemResult]]:
        self._handler.batches.append(self._items)
        await self._handler.go.wait()
        late = [item for item in self._items if self._handler.late and item.request == self._handler.late]
        yield [self._handler.answer(item) for item in self._items if item not in late]
        if late:
            await self._handler.late_go.wait()
            yield [self._handler.answer(item) for item in late]

    def withdraw(self, index: int) -> None:
        self._handler.withdrawn.put_nowait(index)

    def abandon(self) -> None:
        self._handler.abandoned += 1


@dataclass
class ScriptedWorker:
    service: BatchingService
    server: grpc.aio.Server
    target: str

    async def kill(self) -> None:
        await self.server.stop(grace=None)


@contextlib.asynccontextmanager
async def scripted_worker(
    models: dict[str, ScriptedHandler], target: str = "127.0.0.1:0", processes: int = 1
) -> AsyncIterator[ScriptedWorker]:
    """A grpc server on a free port that serves ``models``, as one of so many processes of a worker."""
    service = BatchingService(processes)
    for name, handler in models.items():
        await service.put(name, handler)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((service.rpc_handler(),))
    port = server.add_insecure_port(target)
    await server.start()
    try:
        yield ScriptedWorker(service, server, f"127.0.0.1:{port}")
    finally:
        await server.stop(grace=None)
