"""The process of scripted replicas: any number of worker servers, each on a port of its own.

python -m benchmarks.batching.replicas ORDERS, a JSON that ``Orders.parse`` reads
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from benchmarks.batching.scripted import ScriptedModel, SerialEngine
from shoal.batcher.core import Batcher, open_channel
from shoal.batcher.dispatch import Dispatcher
from shoal.batcher.grpcio_door import GenericHandler
from shoal.batching.service import BatchingService
from shoal.batching.wire import SERVICE, read_settings, write_settings
from shoal.runtime.signals import run_until_signal
from shoal.simulate.curve import CostCurve

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

    from shoal.modelconfig.batching import BatchingSettings

AT_ONCE = CostCurve()


@dataclass(frozen=True, slots=True)
class Model:
    """What a replica serves under one name."""

    settings: BatchingSettings
    curve: CostCurve = AT_ONCE
    echo: bool = False


@dataclass(frozen=True, slots=True)
class Orders:
    """What the process is told."""

    listen: Sequence[str]
    """``HOST:PORT``, one a replica."""
    models: Mapping[str, Model]
    inside: bool = False
    """Each replica batches for itself, and takes single calls: dynamic batching in the server."""

    def __str__(self) -> str:
        models = {
            name: {**asdict(model), "settings": write_settings(model.settings)} for name, model in self.models.items()
        }
        return json.dumps({**asdict(self), "models": models})

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads what ``str`` wrote."""
        told = json.loads(text)
        models = {
            name: Model(read_settings(model["settings"]).settings, CostCurve(**model["curve"]), model["echo"])
            for name, model in told["models"].items()
        }
        return cls(told["listen"], models, told["inside"])


class Replica:
    """One worker with its own engine a model."""

    def __init__(self, listen: str, orders: Orders) -> None:
        self._listen = listen
        self._orders = orders
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._batcher = Batcher(Dispatcher(open_channel(listen), listen)) if orders.inside else None

    async def start(self) -> None:
        """Serves from now on."""
        service = BatchingService()
        for name, model in self._orders.models.items():
            await service.put(name, ScriptedModel(model.settings, SerialEngine(model.curve), model.echo))
        health_servicer = health.aio.HealthServicer()
        for name in ("", SERVICE):  # what a router asks batchers for, and what it asks workers for
            await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, self._server)
        self._server.add_generic_rpc_handlers((service.rpc_handler(),))
        if self._batcher is not None:
            self._server.add_generic_rpc_handlers((GenericHandler(self._batcher),))
        self._server.add_insecure_port(self._listen)
        await self._server.start()

    async def stop(self) -> None:
        """Ends at once: who measures has stopped calling."""
        if self._batcher is not None:
            await self._batcher.dispatcher.close()
        await self._server.stop(grace=None)


async def serve(orders: Orders, stop: asyncio.Event) -> None:
    """Runs every replica until ``stop`` is set."""
    replicas = [Replica(listen, orders) for listen in orders.listen]
    for replica in replicas:
        await replica.start()
    await stop.wait()
    for replica in replicas:
        await replica.stop()


if __name__ == "__main__":
    told = Orders.parse(sys.argv[1])
    run_until_signal(lambda stop: serve(told, stop))
