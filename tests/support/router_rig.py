"""A router with a real Envoy, between a client and small echo servers that stand in for batcher and workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from shoal.batching.v1 import batching_pb2
from shoal.batching.wire import STREAM
from shoal.router.keeper import ConfigKeeper
from shoal.router.process import serve
from shoal.runtime.envoy_admin import admin_socket
from shoal.service import api_keys
from shoal.service.home import Home
from shoal.service.topology import Topology
from support.ports import free

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from shoal.runtime.endpoint import Endpoint
    from shoal.service.api_keys import Key

CLASSIFY = "/shoal.v1.Inference/Classify"
COMPUTE = "/shoal.batching.v1.Batching/Compute"
CLASSIFY_STREAM = CLASSIFY + STREAM
SERVED = "/shoal.batching.v1.Batching/Served"
PATIENCE = 60.0  # seconds after which a test has failed
FLOOD_BYTES = 64 * 2**10
"""One message of a flood."""
OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass
class Echo(grpc.GenericRpcHandler):
    """Answers a unary call with its metadata as JSON, or, where the message is ``wait``, once ``gate`` is set.

    A stream of calls gets its metadata first, then each message back, or, for ``flood``, large ones without end.
    """

    name: str
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    refuses: grpc.StatusCode | None = None
    """What it answers a unary call."""
    serves: list[str] | None = None
    """What it says to those who ask a worker. None: it is older than the question."""
    flooded: int = 0
    """Messages of a flood that went out."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """A stream of calls has come to an end."""

    async def served(self, *_: object) -> bytes:
        return batching_pb2.ServedReply(ready=True, models=self.serves).SerializeToString()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method == SERVED and self.serves is not None:
            return grpc.unary_unary_rpc_method_handler(self.served)
        if details.method == COMPUTE:
            return grpc.stream_stream_rpc_method_handler(self.stream)
        if details.method.startswith("/shoal.v1.") and details.method.endswith(STREAM):
            return grpc.stream_stream_rpc_method_handler(self.calls)
        if details.method.startswith("/shoal.v1.") or "Reflection" in details.method:
            return grpc.unary_unary_rpc_method_handler(self.unary)
        return None

    async def unary(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if request == b"wait":
            self.waiting.set()
            await self.gate.wait()
        if self.refuses is not None:
            await context.abort(self.refuses, "refused")
        return self.told(context)

    def told(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
        return json.dumps({**metadata, "server": self.name, "remaining": context.time_remaining()}).encode()

    async def calls(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncGenerator[bytes]:
        context.add_done_callback(lambda _: self.ended.set())
        yield self.told(context)
        async for request in requests:
            yield request
            while request == b"flood":
                yield bytes(FLOOD_BYTES)
                self.flooded += 1

    async def stream(self, requests: AsyncIterator[bytes], _: object) -> AsyncGenerator[bytes]:
        yield self.name.encode()
        async for request in requests:
            yield request


class Server:
    """An echo server with the standard health service."""

    def __init__(self, name: str, endpoint: Endpoint) -> None:
        self.echo = Echo(name)
        self.health = HealthServicer()
        self.server = grpc.aio.server()
        self.server.add_generic_rpc_handlers((self.echo,))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.server.add_insecure_port(str(endpoint))

    async def set_serving(self, *, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", "shoal.batching.v1.Batching"):
            await self.health.set(service, status)


@dataclass
class Rig:
    """A running router and what stands around it."""

    home: Home
    topology: Topology
    alice: Key
    batcher: Server
    workers: list[Server]
    channel: grpc.aio.Channel
    balancer: grpc.aio.Channel
    stop: asyncio.Event
    router: asyncio.Task[int]

    @property
    def admin(self) -> Path:
        return admin_socket(self.home.run / "router")

    async def call(
        self, key: str | None, model: str | None = "yolo", path: str = CLASSIFY, message: bytes = b"", **options: Any
    ) -> Any:
        """The answer's metadata as the server behind saw it, or the status code's name and the text."""
        metadata = [("x-api-key", key)] * (key is not None) + [("x-model-name", model)] * (model is not None)
        metadata += options.pop("metadata", [])
        try:
            return json.loads(
                await self.channel.unary_unary(path)(message, metadata=metadata, timeout=PATIENCE, **options)
            )
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details()

    async def code(self, *arguments: Any, **options: Any) -> str:
        answer = await self.call(*arguments, **options)
        return answer[0] if isinstance(answer, tuple) else "OK"

    async def until(self, code: str, *arguments: Any, **options: Any) -> None:
        """Calls until the answer has ``code``, on the one open connection."""
        async with asyncio.timeout(60):
            while await self.code(*arguments, **options) != code:
                await asyncio.sleep(0.02)

    def open_calls(
        self, key: str | None, model: str | None = "yolo", path: str = CLASSIFY_STREAM, **options: Any
    ) -> grpc.aio.StreamStreamCall[bytes, bytes]:
        """A stream of calls."""
        metadata = [("x-api-key", key)] * (key is not None) + [("x-model-name", model)] * (model is not None)
        metadata += options.pop("metadata", [])
        channel = options.pop("channel", self.channel)
        return channel.stream_stream(path)(metadata=metadata, **options)

    async def open_stream(self, model: str = "yolo") -> tuple[str, Any]:
        """A batching stream, and the name of the worker that has it."""
        stream = self.balancer.stream_stream(COMPUTE)(metadata=[("x-model-name", model)])
        return (await stream.read()).decode(), stream


def add_model(home: Home, name: str) -> None:
    (home.models / name).mkdir(parents=True)
    (home.models / name / "config.pbtxt").touch()


@contextlib.asynccontextmanager
async def running(
    tmp_path: Path,
    *,
    service: str = "",
    workers: int = 1,
    pool: str = "default",
    groups: dict[str, Endpoint] | None = None,
    **more: Endpoint,
) -> AsyncGenerator[Rig]:
    """``groups`` are batchers of models, where nobody listens yet; ``more`` is of the topology."""
    home = Home(tmp_path / "home")
    alice = api_keys.create(home.keys, "alice")
    add_model(home, "yolo")
    (tmp_path / "shoal.yaml").write_text(service)
    hosts = [free() for _ in range(workers)]
    batchers = {"shared": [free()], **{group: [endpoint] for group, endpoint in (groups or {}).items()}}
    topology = Topology(public=free(), balancer=free(), metrics=free(), batchers=batchers, pools={pool: hosts}, **more)
    topology.save(tmp_path / "topology.json")
    batcher = Server("batcher", topology.batchers["shared"][0])
    servers = [Server(f"worker-{number}", host) for number, host in enumerate(hosts)]
    stop = asyncio.Event()
    keeper = ConfigKeeper(service_file=tmp_path / "shoal.yaml", topology_file=tmp_path / "topology.json", home=home)
    router = asyncio.create_task(serve(keeper, stop))
    try:
        for server in (batcher, *servers):
            await server.set_serving(serving=True)
            await server.server.start()
        async with (
            grpc.aio.insecure_channel(str(topology.public), options=OPTIONS) as channel,
            grpc.aio.insecure_channel(str(topology.balancer), options=OPTIONS) as balancer,
        ):
            async with asyncio.timeout(PATIENCE):
                await channel.channel_ready()
                await balancer.channel_ready()
            yield Rig(home, topology, alice, batcher, servers, channel, balancer, stop, router)
    finally:
        stop.set()
        await asyncio.wait({router})
        for server in (batcher, *servers):
            await server.server.stop(None)
        router.result()
