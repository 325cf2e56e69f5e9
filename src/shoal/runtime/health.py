"""gRPC health: what a process says of itself to whoever started it and to load balancers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from shoal.runtime import rpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from shoal.runtime.endpoint import Endpoint

LIVENESS = "liveness"
"""A name for health to be asked for, which is SERVING as long as we answer at all: who isn't ready needs no restart."""
STARTED = "started"
"""Another, which is SERVING from the first word on: all that was to be tried was tried, well or not."""


_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """Answers what was said last, for every one of ``services`` and for the process as a whole.

    Args:
        services: Names that callers may ask for.
    """

    def __init__(self, *services: str) -> None:
        self._services = services
        self._servicer = health.aio.HealthServicer()

    async def say(self, *, serving: bool, ready: bool | None = None) -> None:
        """What is answered from now on.

        Args:
            serving: Whether calls may come: for each service by its name, which load balancers ask for.
            ready: Whether all is as it is meant to be: for the process, which whoever started it asks for. None: the
                same.
        """
        await self._set(serving, self._services)
        await self._set(serving if ready is None else ready, ("",))
        await self._set(True, (STARTED,))

    async def join(self, server: grpc.aio.Server) -> None:
        """Answers at ``server``, which is not started yet: NOT_SERVING until something is said."""
        await self._set(False, ("", STARTED, *self._services))
        await self._set(True, (LIVENESS,))
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    @asynccontextmanager
    async def listening(self, listen: Endpoint | None) -> AsyncIterator[None]:
        """Answers at ``listen`` meanwhile, and nothing else there. None: nowhere.

        Raises:
            ConfigurationError: the port can't be had.
        """
        if listen is None:
            yield
            return
        rpc.keep_queue()
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        await self.join(server)
        rpc.listen(server, listen)
        await server.start()
        try:
            yield
        finally:
            await server.stop(grace=None)

    async def _set(self, serving: bool, names: Iterable[str]) -> None:
        for name in names:
            await self._servicer.set(name, _SERVING if serving else _NOT_SERVING)
