"""A running ``shoal serve worker``, asked as a kubelet, a load balancer and ``shoal up`` ask it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shoal.runtime import tether
from shoal.service import api_keys
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PATIENCE_SECONDS = 60.0
READY, BATCHES, STARTED, ALIVE = "", "shoal.batching.v1.Batching", "started", "liveness"


class RunningWorker:
    """Its doors."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.address = f"127.0.0.1:{port}"
        self._log = log

    async def serving(self, service: str = READY) -> bool:
        """What health answers for ``service`` now."""
        async with grpc.aio.insecure_channel(self.address, [("grpc.enable_http_proxy", 0)]) as channel:
            request = health_pb2.HealthCheckRequest(service=service)
            reply = await health_pb2_grpc.HealthStub(channel).Check(
                request, wait_for_ready=True, timeout=PATIENCE_SECONDS
            )
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    async def until(self, service: str = READY) -> None:
        """Waits until health says SERVING."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await self.serving(service):  # of another process
                await asyncio.sleep(0.05)

    async def until_said(self, text: str) -> None:
        """Waits for words in its log."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while text not in self.log():  # of another process
                await asyncio.sleep(0.05)

    async def standing(self) -> tuple[bool, bool]:
        """Once it has tried all models: whether it is ready, and whether it takes batches."""
        await self.until(STARTED)
        return await self.serving(READY), await self.serving(BATCHES)

    def log(self) -> str:
        return self._log.read_text()


@asynccontextmanager
async def worker(root: Path, service: str, *options: str) -> AsyncIterator[RunningWorker]:
    """One of pool ``default`` with a home in ``root``; its process listens when this returns."""
    home = root / "home"
    if not (home / "keys.json").exists():
        api_keys.create(home / "keys.json", "alice")
    file = root / "shoal.yaml"
    file.write_text(service)
    port = free_port()
    log = root / f"worker-{port}.log"
    command = ["-m", "shoal", "serve", "worker", "--service", str(file), "--home", str(home), "--pool", "default"]
    command += ["--listen", f"127.0.0.1:{port}", "--metrics", f"127.0.0.1:{free_port()}", *options]
    with log.open("ab") as out:
        process = subprocess.Popen(  # noqa: ASYNC220 - it only starts
            [sys.executable, "-S", tether.__file__, str(os.getpid()), sys.executable, *command],
            stdout=out,
            stderr=out,
        )
    running = RunningWorker(process, port, log)
    try:
        await running.until(ALIVE)
        yield running
    finally:
        process.kill()
        process.wait()
