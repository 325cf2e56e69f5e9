"""``shoal serve batcher`` as a process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

METADATA = (("x-model-name", "m"), ("x-client-id", "key-1"))


class BatcherProcess:
    """One ``shoal serve batcher``."""

    def __init__(
        self, process: asyncio.subprocess.Process, listen: str, metrics: int, channel: grpc.aio.Channel
    ) -> None:
        self.process = process
        self.listen = listen
        self.metrics = metrics
        self.channel = channel
        self.call = channel.unary_unary("/any.Service/Method")

    async def ask(self, message: bytes, timeout: float | None = 60.0) -> bytes:
        return await self.call(message, metadata=METADATA, timeout=timeout)


@contextlib.asynccontextmanager
async def batcher(door: str, *arguments: str) -> AsyncIterator[BatcherProcess]:
    """Behind the door ``door``; ``arguments`` say which workers it is for."""
    listen, metrics = f"127.0.0.1:{free_port()}", free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shoal", "serve", "batcher", "--listen", listen),
        *("--metrics", f"127.0.0.1:{metrics}", *arguments),
        env={**os.environ, "SHOAL_BATCHER_FRONT": door},
    )
    async with grpc.aio.insecure_channel(listen) as channel:
        try:
            await until_healthy(channel)
            yield BatcherProcess(process, listen, metrics, channel)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def until_healthy(channel: grpc.aio.Channel) -> None:
    """Waits for the server at the other end."""
    health = health_pb2_grpc.HealthStub(channel)
    reply = await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=60)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
