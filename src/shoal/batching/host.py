"""The server of a worker's process: batching streams, health, reflection, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from shoal.batching.wire import MAX_CHUNK_BYTES, SERVICE
from shoal.runtime import rpc
from shoal.runtime.health import Health

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoal.batching.service import BatchingService
    from shoal.runtime.endpoint import Endpoint

log = logging.getLogger(__name__)

NOTICE_SECONDS = 1.0
"""After SIGTERM batches are still taken for so long, unless no batcher is there: the load balancer learns within 0.6 s
that we leave, and what it still sends us until then isn't turned away."""
DRAIN_SECONDS = 30.0
"""Batches in flight get this long to finish after that."""
STOP_SECONDS = 1.0
"""What else is open gets this long."""


class Host:
    """Listens as soon as it is started, and is healthy once it says so."""

    def __init__(
        self,
        batching: BatchingService,
        services: Iterable[str],
        handlers: Iterable[grpc.GenericRpcHandler] = (),
        connection_seconds: float = math.inf,
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        """Prepares.

        Args:
            batching: Serves the batching streams.
            services: Full names of the services that health and reflection name besides.
            handlers: Serve what doesn't come in batches.
            connection_seconds: After about so long a connection is asked to make way for another; nothing on it is cut.
            stop_seconds: What is open once no batch has a permit, such as stragglers' answers, gets so long.
        """
        self._batching = batching
        self._services = (SERVICE, *services)
        self._handlers = tuple(handlers)
        self._connection_seconds = connection_seconds
        self._stop_seconds = stop_seconds
        self.health = Health(*self._services)
        """What it answers to gRPC health, for each service and for the process."""

    async def start(self, listen: Endpoint) -> Endpoint:
        """Listens, NOT_SERVING; answers where, which tells the port if ``listen`` leaves it open with 0.

        Raises:
            ConfigurationError: the port can't be had.
        """
        options = [
            ("grpc.max_receive_message_length", MAX_CHUNK_BYTES),
            ("grpc.so_reuseport", 0),
            *rpc.BEHIND_THE_ROUTER,
            ("grpc.keepalive_time_ms", 20_000),  # a load balancer or batcher that hangs gives its permits back
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
        if math.isfinite(self._connection_seconds):
            options.append(("grpc.max_connection_age_ms", int(self._connection_seconds * 1000)))
        rpc.keep_queue()
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((self._batching.rpc_handler(), *self._handlers))
        await self.health.join(self._server)
        names = [*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self._server)
        endpoint = rpc.listen(self._server, listen)
        await self._server.start()
        return endpoint

    async def drain(self) -> None:
        """Takes batches until the batchers know that it leaves, finishes what it has, and stops."""
        log.info("draining")
        await self.health.say(serving=False)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._batching.deserted(), NOTICE_SECONDS)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._batching.drain(), DRAIN_SECONDS)
        await self._server.stop(grace=self._stop_seconds)
