"""The batcher's core, whichever door a call comes through: headers in, opaque messages to the dispatcher."""

from __future__ import annotations

import logging
import math
import os
from typing import TYPE_CHECKING

import grpc
from prometheus_client import start_http_server

from shoal.batcher.dispatch import Dispatcher
from shoal.errors import RETRY_PUSHBACK, Code, InvalidRequest, Overloaded, ShoalError, Unavailable, to_status
from shoal.topology import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    Headers = Mapping[str, str]

log = logging.getLogger(__name__)

HEALTH_CHECK = "/grpc.health.v1.Health/Check"
NAME_VARIABLE = "SHOAL_BATCHER_NAME"
BALANCER_VARIABLE = "SHOAL_BATCHER_BALANCER"
METRICS_VARIABLE = "SHOAL_BATCHER_METRICS"
DEFAULT_TIMEOUT_SECONDS = 30.0
"""For a call without a deadline; the router sets one on every call."""
MAX_MESSAGE_BYTES = 65_536

_SERVING, _NOT_SERVING = b"\x08\x01", b"\x08\x02"  # grpc.health.v1.HealthCheckResponse


class Batcher:
    """What both doors share."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.draining = False

    async def call(self, method: str, headers: Headers, message: bytes, timeout_seconds: float | None) -> bytes:
        """Answers one unary call, or raises the ShoalError of its status."""
        if self.draining:
            raise Unavailable("the batcher is draining; try again")
        model = headers.get("x-model-name")
        if not model:
            raise InvalidRequest("the x-model-name metadata is missing")
        return await self.dispatcher.submit(
            method,
            model,
            headers.get("x-client-id", ""),
            message,
            DEFAULT_TIMEOUT_SECONDS if timeout_seconds is None else timeout_seconds,
            headers.get("traceparent", ""),
        )

    @property
    def health(self) -> bytes:
        """A serialized grpc.health.v1.HealthCheckResponse."""
        return _NOT_SERVING if self.draining else _SERVING

    def drain(self) -> None:
        """Health fails from now on, new calls are refused, and no batch waits for company."""
        self.draining = True
        self.dispatcher.drain()


def make_batcher() -> Batcher:
    """The batcher that the environment describes, its metrics served; call it on the event loop that will serve."""
    metrics = Endpoint.parse(os.environ[METRICS_VARIABLE])
    start_http_server(metrics.port, metrics.host)
    return Batcher(Dispatcher(open_channel(os.environ[BALANCER_VARIABLE]), os.environ[NAME_VARIABLE]))


def open_channel(balancer: str) -> grpc.aio.Channel:
    """The channel to the load balancer, for streams that may idle for long."""
    return grpc.aio.insecure_channel(
        balancer,
        options=[
            ("grpc.max_receive_message_length", 64 * 2**20),
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 1_000),
        ],
    )


def status_of(error: Exception) -> tuple[Code, str]:
    """The status of any error; one that nobody expected goes to the log."""
    if not isinstance(error, ShoalError):
        log.error("a call failed", exc_info=error)
    return to_status(error)


def hints_of(error: Exception) -> tuple[tuple[str, str], ...]:
    """What a caller is told besides the status, as trailers."""
    if not isinstance(error, Overloaded) or error.retry_after_seconds is None:
        return ()
    return ((RETRY_PUSHBACK, str(math.ceil(error.retry_after_seconds * 1000))),)
