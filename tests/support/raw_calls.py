"""Calls that the client SDK would never make."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from shoal.errors import Code
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DEADLINE_SECONDS = 60.0
"""Only a call that nobody answers is still there then."""

_REPLIES = {"Classify": pb.ClassifyReply, "Detect": pb.DetectReply, "Segment": pb.SegmentReply}


@dataclass(frozen=True)
class Call:
    """A call of any shape."""

    message: bytes
    key: str | None
    """The metadata ``x-api-key``."""
    model: str | None
    """The metadata ``x-model-name``."""
    method: str = "Classify"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    code: Code
    message: str = ""
    reply: pb.ClassifyReply | pb.DetectReply | pb.SegmentReply | None = None

    @property
    def label(self) -> str:
        """The best class."""
        assert isinstance(self.reply, pb.ClassifyReply), self
        return self.reply.classes[0].label


class RawClient:
    """Sends what it is told on one connection."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def send(self, call: Call, timeout: float = DEADLINE_SECONDS) -> Answer:
        """The answer, good or bad."""
        metadata = [("x-api-key", call.key), ("x-model-name", call.model)]
        method = self._channel.unary_unary(f"/shoal.v1.Inference/{call.method}")
        try:
            reply = await method(
                call.message, timeout=timeout, metadata=[(name, value) for name, value in metadata if value is not None]
            )
        except grpc.aio.AioRpcError as error:
            return Answer(Code(error.code().value[0]), error.details() or "")
        return Answer(Code.OK, reply=_REPLIES[call.method].FromString(reply))


@asynccontextmanager
async def raw_client(target: str) -> AsyncIterator[RawClient]:
    """A client with a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        await channel.channel_ready()
        yield RawClient(channel)
