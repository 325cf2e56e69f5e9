"""A process in the node's network namespace, where the pods' addresses are: it probes for the kubelet.

``python -m support.cluster.agent`` answers each line of JSON with one.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator

    from support.cluster.network import Network

_SECONDS = 2.0


class Agent:
    """Our side of it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    async def health(self, target: str, service: str) -> bool:
        """Whether gRPC health says SERVING."""
        return bool(await self._ask({"health": target, "service": service}))

    async def http(self, url: str) -> bool:
        """Whether a GET is answered with success."""
        return 200 <= (await self.get(url))[0] < 400

    async def get(self, url: str) -> tuple[int, str]:
        """Status and text of an answer; 0 where there is none."""
        status, text = await self._ask({"get": url})
        return status, text

    async def _ask(self, question: dict[str, str]) -> Any:
        async with self._turn:
            assert self._process.stdin
            assert self._process.stdout
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            return json.loads(await self._process.stdout.readline())


@asynccontextmanager
async def agent(network: Network) -> AsyncGenerator[Agent]:
    """One in the node's namespace."""
    async with network.helper("support.cluster.agent") as process:
        yield Agent(process)


async def _health(target: str, service: str) -> bool:
    async with grpc.aio.insecure_channel(target, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _get(url: str) -> tuple[int, str]:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS)) as session,
            session.get(url) as got,
        ):
            return got.status, await got.text()
    except (aiohttp.ClientError, TimeoutError):
        return 0, ""


async def _answer() -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        answer = await _get(asked["get"]) if "get" in asked else await _health(asked["health"], asked["service"])
        print(json.dumps(answer), flush=True)  # noqa: T201 - our only way to say it


if __name__ == "__main__":
    asyncio.run(_answer())
