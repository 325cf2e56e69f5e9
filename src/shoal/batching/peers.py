"""What the other workers of a pool serve: a new one is to serve no less."""

from __future__ import annotations

import asyncio
import random
import socket
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc

from shoal.batching.v1 import batching_pb2
from shoal.batching.wire import SERVICE
from shoal.runtime import rpc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoal.runtime.endpoint import Endpoint

_SECONDS: Final = 2.0
"""What a worker may take to answer, and a name to be resolved."""
_MOST_ASKED: Final = 32
"""Workers of one pool that are asked; more would say the same."""


class Proof:
    """What a worker answers when another one asks."""

    def __init__(self, origin: str = "") -> None:
        """``origin`` names where its models come from (``readiness.origin``)."""
        self._origin = origin
        self._reply = batching_pb2.ServedReply()

    def set(self, models: Iterable[str], *, ready: bool, described: Iterable[batching_pb2.ServedModel] = ()) -> None:
        """From now on."""
        self._reply = batching_pb2.ServedReply(
            ready=ready, models=sorted(models), origin=self._origin, described=described
        )

    def rpc_handler(self) -> grpc.GenericRpcHandler:
        """What ``grpc.aio.Server.add_generic_rpc_handlers`` takes."""
        served = grpc.unary_unary_rpc_method_handler(
            self._served,
            request_deserializer=batching_pb2.ServedRequest.FromString,
            response_serializer=batching_pb2.ServedReply.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Served": served})

    async def _served(self, _: object, __: object) -> batching_pb2.ServedReply:
        return self._reply


class Seen(NamedTuple):
    """What a ready worker says."""

    models: frozenset[str]
    """Those that it serves."""
    origin: str
    """Names where its models come from (``readiness.origin``); empty if the worker is too old to say."""
    described: tuple[batching_pb2.ServedModel, ...] = ()
    """What there is to say of them."""


async def ask_all(peers: Endpoint) -> list[Seen]:
    """What workers at ``peers`` say which are ready; ourselves, we don't count yet."""
    replies = await asyncio.gather(*(_ask(address) for address in await _addresses(peers)))
    return [
        Seen(frozenset(reply.models), reply.origin, tuple(reply.described))
        for reply in replies
        if reply is not None and reply.ready
    ]


async def _addresses(peers: Endpoint) -> list[str]:
    """``HOST:PORT`` of whom the name stands for, or of ``_MOST_ASKED`` of them; none where DNS has no answer."""
    try:
        async with asyncio.timeout(_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(*peers, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError):
        return []
    hosts = sorted({str(address[0]) for *_, address in found})
    chosen = random.sample(hosts, min(len(hosts), _MOST_ASKED))
    return [f"[{host}]:{peers.port}" if ":" in host else f"{host}:{peers.port}" for host in chosen]


async def _ask(target: str) -> Any:  # a protobuf message, or None
    """An older worker, or one that is away or in no network of ours, says nothing."""
    async with grpc.aio.insecure_channel(target, [("grpc.enable_http_proxy", 0)]) as channel:
        served = channel.unary_unary(
            f"/{SERVICE}/Served",
            request_serializer=batching_pb2.ServedRequest.SerializeToString,
            response_deserializer=batching_pb2.ServedReply.FromString,
        )
        try:
            return await rpc.answered(served(batching_pb2.ServedRequest(), timeout=_SECONDS))
        except grpc.aio.AioRpcError:
            return None
