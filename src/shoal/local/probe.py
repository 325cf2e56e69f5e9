"""Asks a part whether it is ready."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

from shoal.local.plan import Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shoal.runtime.endpoint import Endpoint

_ATTEMPT_SECONDS = 1.0
_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 0.1


async def until_ready(protocol: Protocol, endpoint: Endpoint) -> None:
    """Returns once the part behind ``endpoint`` says that it serves. Give it a time limit.

    A program can't be told to announce when it listens, so we ask, every 10 ms and soon every 100 ms.
    """
    pause = _FIRST_PAUSE
    while not await _ask(_PROBES[protocol], endpoint):
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


async def _ask(probe: Callable[[Endpoint], Awaitable[bool]], endpoint: Endpoint) -> bool:
    try:
        async with asyncio.timeout(_ATTEMPT_SECONDS):
            return await probe(endpoint)
    except (OSError, TimeoutError):
        return False


async def _accepts(endpoint: Endpoint, trust: ssl.SSLContext | None = None) -> bool:
    _, writer = await asyncio.open_connection(*endpoint, ssl=trust)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


async def _shows_certificate(endpoint: Endpoint) -> bool:
    anyone = ssl.create_default_context()
    anyone.check_hostname = False
    anyone.verify_mode = ssl.CERT_NONE
    return await _accepts(endpoint, anyone)


async def _serving(endpoint: Endpoint, service: str = "") -> bool:
    if not await _accepts(endpoint):  # cheaper than a channel, and a channel's own back-off starts at a second
        return False
    import grpc.aio  # 50 ms that overlap the start of the parts
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

    from shoal.runtime import rpc

    rpc.keep_queue()
    async with grpc.aio.insecure_channel(str(endpoint), options=[("grpc.enable_http_proxy", 0)]) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        try:
            answer = await rpc.answered(check(HealthCheckRequest(service=service)))
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == HealthCheckResponse.SERVING)


async def _started(endpoint: Endpoint) -> bool:
    from shoal.runtime.health import STARTED  # not everybody who asks for a port has its libraries

    return await _serving(endpoint, STARTED)


_PROBES = {
    Protocol.TCP: _accepts,
    Protocol.TLS: _shows_certificate,
    Protocol.GRPC: _serving,
    Protocol.WORKER: _started,
}
