"""Callers with plain gRPC: no SDK, no second try."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING

import grpc

from shoal.client import Client
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CLASSIFY = "/shoal.v1.Inference/Classify"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
PATIENT = 60.0
"""Seconds of a patient caller's deadline."""
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
HARMLESS = {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"}
"""What an overloaded caller may be told. Never that the service is away."""


class Caller:
    """Plain gRPC with one key; ``heard`` counts what came back."""

    def __init__(self, target: str, key: str, image_uuid: str) -> None:
        self.target, self.key, self.image_uuid = target, key, image_uuid
        self.message = pb.ImageRequest(api_key=key, image_uuid=image_uuid, model_name="tiny").SerializeToString()
        self.heard: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def channels(self, count: int) -> AsyncIterator[list[grpc.aio.Channel]]:
        """Connections of their own."""
        async with contextlib.AsyncExitStack() as stack:
            made = [grpc.aio.insecure_channel(self.target, options=OPTIONS) for _ in range(count)]
            for channel in made:
                await stack.enter_async_context(channel)
                await channel.channel_ready()
            yield made

    def start(
        self, channel: grpc.aio.Channel, method: str = CLASSIFY, *more: tuple[str, str], timeout: float = PATIENT
    ) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        metadata = (("x-api-key", self.key), ("x-model-name", "tiny"), *more)
        return channel.unary_unary(method)(self.message, timeout=timeout, metadata=metadata)

    async def hear(self, call: grpc.aio.Call) -> None:
        code = await call.code()
        told = await call.details() if code not in {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED} else ""
        self.heard[f"{code.name}: {told}" if code.name not in HARMLESS else code.name] += 1

    async def all(self, calls: list[grpc.aio.Call]) -> None:
        await asyncio.gather(*map(self.hear, calls))


def caller(target: str, key: str, picture: bytes) -> Caller:
    """One that asks about ``picture``."""
    with Client(target, api_key=key) as client:
        return Caller(target, key, str(client.upload(picture)))
