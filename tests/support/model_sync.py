"""A running ``shoal serve model-sync``."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shoal.local.plan import Protocol
from shoal.local.probe import until_ready
from shoal.runtime import tether
from shoal.runtime.endpoint import Endpoint
from support.metrics import sample
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PATIENCE_SECONDS = 60.0


class Sync:
    """A running model-sync."""

    def __init__(self, process: subprocess.Popen[bytes], health: int, http: int, log: Path) -> None:
        self.process = process
        self._health = f"127.0.0.1:{health}"
        self.metrics = Endpoint("127.0.0.1", http)
        self._http = f"http://127.0.0.1:{http}"
        self._log = log

    async def ready(self) -> bool:
        async with grpc.aio.insecure_channel(self._health) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            reply = await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=PATIENCE_SECONDS)
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    async def notify(self) -> None:
        async with aiohttp.ClientSession() as session, session.post(f"{self._http}/notify") as reply:
            assert reply.status == 202

    async def listens(self) -> None:
        """Waits until its doors are open."""
        async with grpc.aio.insecure_channel(self._health) as channel, asyncio.timeout(PATIENCE_SECONDS):
            await channel.channel_ready()
        await until_ready(Protocol.TCP, self.metrics)

    async def metric(self, name: str, **labels: str) -> float:
        return await sample(f"{self._http}/metrics", f"shoal_model_sync_{name}", **labels)

    async def until_metric(self, name: str, least: float, **labels: str) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self.metric(name, **labels) < least:  # of another process
                await asyncio.sleep(0.05)

    def log(self) -> str:
        return self._log.read_text()


@asynccontextmanager
async def model_sync(service_file: Path, *options: str, ready: bool = True) -> AsyncIterator[Sync]:
    """Started, and ready unless that isn't to be expected."""
    health, http = free_port(), free_port()
    log = service_file.with_name("model-sync.log")
    command = ["-m", "shoal", "serve", "model-sync", "--service", str(service_file), *options]
    command += ["--listen", f"127.0.0.1:{health}", "--metrics", f"127.0.0.1:{http}"]
    with log.open("ab") as out:
        process = subprocess.Popen(  # noqa: ASYNC220 - it only starts
            [sys.executable, "-S", tether.__file__, str(os.getpid()), sys.executable, *command],
            stdout=out,
            stderr=out,
        )
    running = Sync(process, health, http, log)
    try:
        if ready:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await running.ready():  # of another process
                    await asyncio.sleep(0.05)
        await running.listens()
        yield running
        process.terminate()
        assert await asyncio.to_thread(process.wait, PATIENCE_SECONDS) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
