"""The gRPC channel: where it leads, how it is kept alive, and calls that raise errors of Shoal's tree."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

import grpc
import grpc.aio

from shoal.batching import wire
from shoal.batching.v1 import stream_pb2
from shoal.client.stream_end import pushback
from shoal.errors import (
    Cancelled,
    ConfigurationError,
    Overloaded,
    ShoalError,
    Unavailable,
    from_status,
)
from shoal.runtime import rpc
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from shoal.client.stream_end import StreamCall

    Metadata = tuple[tuple[str, str], ...]

RequestT = TypeVar("RequestT", bound="Message")
ReplyT = TypeVar("ReplyT", bound="Message")
AnswerT = TypeVar("AnswerT")

_TLS = {"https": True, "grpcs": True, "http": False, "grpc": False}
_DEFAULT_PORT = {scheme: 443 if tls else 80 for scheme, tls in _TLS.items()}

_AROUND_A_REPLY = 1024
"""Bytes of a stream's message around its only result, at most."""
OPTIONS: tuple[tuple[str, int], ...] = (
    # A router that went away without a word (a cut cable, a frozen host) is noticed in 30 + 10 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Requests are about 100 bytes, and the service refuses what is larger than this; replies with masks are the large
    # ones. Both may be one of many in a stream's message.
    ("grpc.max_send_message_length", wire.STREAM_CHUNK_BYTES + wire.REQUEST_BYTES),
    ("grpc.max_receive_message_length", wire.REPLY_BYTES + _AROUND_A_REPLY),
    # gRPC's own 1 s to 120 s would leave a service that is back unused for minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


def open_channel(target: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """A channel to ``target``; it connects with the first call.

    Raises:
        ConfigurationError: ``target`` is not ``HOST:PORT``, an ``http(s)://`` or ``grpc(s)://`` URL or a gRPC name.
    """
    address, tls = parse_target(target)
    rpc.keep_queue()
    if credentials is None and not tls:
        return grpc.aio.insecure_channel(address, OPTIONS)
    return grpc.aio.secure_channel(address, credentials or grpc.ssl_channel_credentials(), OPTIONS)


def parse_target(target: str) -> tuple[str, bool]:
    """The gRPC name of ``target``, and whether it asks for TLS."""
    scheme, separator, _ = target.partition("://")
    if not target or any(letter.isspace() for letter in target):
        raise ConfigurationError(f"target {target!r}: expected HOST:PORT or https://HOST[:PORT]")
    if not separator or scheme not in _TLS:
        return target, False
    wrong = ConfigurationError(f"target {scheme}://…: expected {scheme}://HOST[:PORT] and nothing else")
    try:
        parts = urlsplit(target)
        port = parts.port
    except ValueError:
        raise wrong from None
    if not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise wrong  # which may hold a password: it is not repeated
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port or _DEFAULT_PORT[scheme]}", _TLS[scheme]


async def connect(channel: grpc.aio.Channel, target: str, timeout_seconds: float) -> None:
    """Waits until ``channel`` is connected.

    Raises:
        Unavailable: the connection was refused, or took longer than ``timeout_seconds``.
    """
    try:
        async with asyncio.timeout(timeout_seconds):
            while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
                if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                    raise Unavailable(f"no service answers at {target}")
                await channel.wait_for_state_change(state)
    except TimeoutError:
        raise Unavailable(f"no service answered at {target} within {timeout_seconds:g} s") from None


class Method(Generic[RequestT, ReplyT]):
    """One RPC method of one channel; made once, since gRPC prepares a method's handle when it is made."""

    def __init__(self, channel: grpc.aio.Channel, path: str, request: type[RequestT], reply: type[ReplyT]) -> None:
        self._call = channel.unary_unary(path, request.SerializeToString, reply.FromString)

    async def __call__(self, request: RequestT, timeout_seconds: float, metadata: Metadata) -> ReplyT:
        """Sends one request and waits for its reply.

        Raises:
            ShoalError: what the service answered, or that it could not be reached.
            Cancelled: the channel was closed meanwhile.
        """
        return await _call(lambda: self._call(request, timeout=timeout_seconds, metadata=metadata))


async def _call(start: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
    try:
        return await rpc.answered(start())
    except grpc.aio.AioRpcError as error:
        raise _translate(error) from None
    except asyncio.CancelledError:
        # gRPC says the same when a closing channel drops a call; only our caller's own wish is passed on as such.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Cancelled("the client was closed") from None
    except grpc.aio.UsageError:
        raise Cancelled("the client is closed") from None


class InferenceMethod(Generic[ReplyT]):
    """A method that can be called alone and by stream, with serialized messages: ``ImageRequest`` and ``reply``."""

    def __init__(self, channel: grpc.aio.Channel, name: str, reply: type[ReplyT]) -> None:
        self.name = name
        self.reply = reply
        path = f"/shoal.v1.Inference/{name}"
        self._unary: Any = channel.unary_unary(path)
        self._stream: Any = channel.stream_stream(
            path + wire.STREAM,
            request_serializer=stream_pb2.CallChunk.SerializeToString,
            response_deserializer=stream_pb2.CallResultChunk.FromString,
        )

    async def __call__(self, message: bytes, timeout_seconds: float, metadata: Metadata) -> bytes:
        """One unary call; raises what ``Method`` raises."""
        answer: bytes = await _call(lambda: self._unary(message, timeout=timeout_seconds, metadata=metadata))
        return answer

    def stream_starter(self, metadata: Metadata) -> Callable[[], StreamCall]:
        """What starts a stream of calls."""
        return lambda: self._stream(metadata=metadata)


class Methods:
    """The methods that the client calls."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.classify = InferenceMethod(channel, "Classify", pb.ClassifyReply)
        self.detect = InferenceMethod(channel, "Detect", pb.DetectReply)
        self.segment = InferenceMethod(channel, "Segment", pb.SegmentReply)
        self.analyze = InferenceMethod(channel, "Analyze", pb.AnalyzeReply)
        self.create_uploads = Method(
            channel, "/shoal.v1.Uploads/Create", pb.CreateUploadsRequest, pb.CreateUploadsReply
        )


def _translate(error: grpc.aio.AioRpcError) -> ShoalError:
    code: int = error.code().value[0]
    translated = from_status(code, error.details() or error.code().name)
    if isinstance(translated, Overloaded):
        translated.retry_after_seconds = pushback(error.trailing_metadata() or ())
    return translated
