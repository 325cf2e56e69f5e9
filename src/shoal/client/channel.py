"""The gRPC channel: where it leads, how it is kept alive, and calls that raise errors of Shoal's tree."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import urlsplit

import grpc
import grpc.aio

from shoal.batching import wire
from shoal.errors import (
    RETRY_PUSHBACK,
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
    from google.protobuf.message import Message

    Metadata = tuple[tuple[str, str], ...]

RequestT = TypeVar("RequestT", bound="Message")
ReplyT = TypeVar("ReplyT", bound="Message")

_MILLISECONDS = re.compile(r"[0-9]{1,10}")
_TLS = {"https": True, "grpcs": True, "http": False, "grpc": False}
_DEFAULT_PORT = {scheme: 443 if tls else 80 for scheme, tls in _TLS.items()}

OPTIONS: tuple[tuple[str, int], ...] = (
    # A router that went away without a word (a cut cable, a frozen host) is noticed in 30 + 10 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Requests are about 100 bytes and the router refuses more than this; replies with masks are the large ones.
    ("grpc.max_send_message_length", wire.REQUEST_BYTES),
    ("grpc.max_receive_message_length", wire.REPLY_BYTES),
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
        try:
            return await rpc.answered(self._call(request, timeout=timeout_seconds, metadata=metadata))
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


class Methods:
    """The methods that the client calls."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        inference = "/shoal.v1.Inference"
        self.classify = Method(channel, f"{inference}/Classify", pb.ImageRequest, pb.ClassifyReply)
        self.detect = Method(channel, f"{inference}/Detect", pb.ImageRequest, pb.DetectReply)
        self.segment = Method(channel, f"{inference}/Segment", pb.ImageRequest, pb.SegmentReply)
        self.create_uploads = Method(
            channel, "/shoal.v1.Uploads/Create", pb.CreateUploadsRequest, pb.CreateUploadsReply
        )


def _translate(error: grpc.aio.AioRpcError) -> ShoalError:
    code: int = error.code().value[0]
    translated = from_status(code, error.details() or error.code().name)
    if isinstance(translated, Overloaded):
        translated.retry_after_seconds = _pushback(error)
    return translated


def _pushback(error: grpc.aio.AioRpcError) -> float | None:
    for name, value in error.trailing_metadata() or ():
        if name == RETRY_PUSHBACK and _MILLISECONDS.fullmatch(str(value)):
            return int(value) / 1000
    return None
