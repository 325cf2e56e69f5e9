"""What the grpcio servers share, and what clients must know of them."""

from __future__ import annotations

import asyncio
import math
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from shoal.errors import RETRY_AFTER, RETRY_PUSHBACK, ConfigurationError, Overloaded

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from shoal.runtime.endpoint import Endpoint

Answer = TypeVar("Answer")

BEHIND_THE_ROUTER = (
    ("grpc.http2.max_ping_strikes", 0),  # Envoy pings to see whether we hang
    # Over a thousand calls that Python hasn't seen yet are ended by chance, whoever's they are: what bounds callers is
    # before.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
)
"""Options of a server whose connections are all callers'."""
STATUS = {status.value[0]: status for status in grpc.StatusCode}
"""grpcio's status for a ``shoal.errors.Code``."""


@cache
def keep_queue() -> None:
    """Keeps this process's completion queue of ``grpc.aio`` for good. Call it on a loop, before a channel or server.

    Otherwise the last channel or server that goes takes the queue along, and waits, deaf to signals, for all that is
    still in it. A server that outlived its event loop leaves a call in it for ever: so whoever closes last, hangs. The
    price is one idle thread, and 3 KiB for each event loop that uses gRPC.
    """
    grpc.aio.init_grpc_aio()


async def answered(call: Awaitable[Answer]) -> Answer:
    """Awaits a call of ``grpc.aio`` whose task may be cancelled meanwhile.

    Awaited as it is, a call that ends at the same moment answers, or fails with its status, and the cancellation is
    lost: Ctrl-C and deadlines would go unheard (grpcio 1.81). One that came before, as in a ``finally``, doesn't count.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        answer = await call
    except grpc.aio.AioRpcError:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError from None
        raise
    if task and task.cancelling() > before:
        raise asyncio.CancelledError
    return answer


def told(context: grpc.aio.ServicerContext[Any, Any]) -> dict[str, str]:
    """The metadata that a call came with."""
    return {key: str(value) for key, value in context.invocation_metadata() or ()}


def listen(server: grpc.aio.Server, endpoint: Endpoint) -> Endpoint:
    """Binds ``server``, which isn't started yet; answers where, with the port that was found for port 0.

    Raises:
        ConfigurationError: naming the port.
    """
    try:
        return endpoint._replace(port=server.add_insecure_port(str(endpoint)))
    except RuntimeError as error:
        raise ConfigurationError(f"can't listen on {endpoint}: is the port in use?") from error


def hints_of(error: Exception) -> tuple[tuple[str, str], ...]:
    """What a caller is told besides the status, as trailers."""
    if not isinstance(error, Overloaded) or error.retry_after_seconds is None:
        return ()
    seconds = error.retry_after_seconds
    # The second is HTTP's, for callers whose router makes headers of it.
    return (RETRY_PUSHBACK, str(math.ceil(seconds * 1000))), (RETRY_AFTER, str(math.ceil(seconds)))
