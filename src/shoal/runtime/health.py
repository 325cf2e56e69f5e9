"""gRPC health of a process that answers no other calls."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from shoal.runtime import rpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shoal.runtime.endpoint import Endpoint


LIVENESS = "liveness"
"""A name for health to be asked for, which is SERVING as long as we answer at all: who isn't ready needs no restart."""
STARTED = "started"
"""Another, which is SERVING from the first word on: all that was to be tried was tried, well or not."""


def status(*, serving: bool) -> health_pb2.HealthCheckResponse.ServingStatus:
    """In gRPC health's words."""
    return health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING


class HealthServer:
    """Answers what was said last, for every one of ``services`` and for the process as a whole.

    Args:
        services: Names that callers may ask for.
    """

    def __init__(self, *services: str) -> None:
        self._services = ("", *services)
        self._health = health.aio.HealthServicer()

    async def say(self, *, serving: bool) -> None:
        """What is answered from now on."""
        for name in self._services:
            await self._health.set(name, status(serving=serving))
        await self._health.set(STARTED, status(serving=True))

    @asynccontextmanager
    async def listening(self, listen: Endpoint | None) -> AsyncIterator[None]:
        """Answers at ``listen`` meanwhile, NOT_SERVING at first. None: nowhere.

        Raises:
            ConfigurationError: the port can't be had.
        """
        for name in (STARTED, *self._services):
            await self._health.set(name, status(serving=False))
        await self._health.set(LIVENESS, status(serving=True))
        if listen is None:
            yield
            return
        rpc.keep_queue()
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        rpc.listen(server, listen)
        await server.start()
        try:
            yield
        finally:
            await server.stop(grace=None)
