"""The router with a real Envoy; batcher and workers are small echo servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import sys
from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client.parser import text_string_to_metric_families

from shoal.errors import HTTP_STATUS, Code, ConfigurationError
from shoal.router.keeper import ConfigKeeper
from shoal.router.process import serve
from shoal.runtime import rpc
from shoal.runtime.endpoint import Endpoint
from shoal.runtime.envoy_admin import EnvoyAdmin, admin_socket
from shoal.service import api_keys
from shoal.service.home import Home
from shoal.service.identity import Identity
from shoal.service.topology import Topology
from support.metrics import sample
from support.ports import free, until_refused
from support.router_rig import CLASSIFY, PATIENCE, Rig, Server, add_model, running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path


CREATE = "/shoal.v1.Uploads/Create"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


@contextlib.contextmanager
def stderr_in(file: Path) -> Iterator[None]:
    """What is started meanwhile logs there."""
    with file.open("wb") as log:
        before = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncGenerator[Rig]:
    async with running(tmp_path) as made:
        yield made


async def test_a_good_call_reaches_the_batcher_under_the_keys_id(rig: Rig) -> None:
    seen = await rig.call(rig.alice.key, metadata=[("x-client-id", "somebody-else"), ("x-client-id", "another")])
    assert seen["server"] == "batcher"
    assert seen["x-client-id"] == rig.alice.id
    assert seen["x-model-name"] == "yolo"
    assert not [value for value in seen.values() if rig.alice.key in str(value)]


async def test_what_the_router_verified_goes_on_in_the_place_of_the_key(rig: Rig) -> None:
    forged = Identity("k", "bob", "bob/", Identity.of(rig.alice).digest).write()
    for path, model in ((CLASSIFY, "yolo"), ("/shoal.v1.Uploads/Create", None)):
        seen = await rig.call(rig.alice.key, model, path, metadata=[("x-client-id", forged), ("x-api-key", forged)])
        assert Identity.parse(seen["x-api-key"]) == Identity.of(rig.alice)
        assert seen["x-client-id"] == rig.alice.id
    assert await rig.code(forged) == "UNAUTHENTICATED"
    path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    assert not {"x-api-key", "x-client-id"} & (await rig.call(rig.alice.key, path=path)).keys()


async def test_no_log_of_the_routers_has_a_digest(tmp_path: Path) -> None:
    with stderr_in(tmp_path / "log"):
        async with running(tmp_path) as rig:
            await rig.batcher.server.stop(None)
            await rig.until("UNAVAILABLE", rig.alice.key)
    log = (tmp_path / "log").read_text()
    assert f'"key_id":"{rig.alice.id}"' in log
    assert Identity.of(rig.alice).digest not in log


async def test_callers_without_a_key_write_no_line_of_their_own(tmp_path: Path) -> None:
    forged = [("x-client-id", "key-of-somebody-else"), ("x-model-name", "m" * 10_000)]
    with stderr_in(tmp_path / "log"):
        async with running(tmp_path) as rig:
            for server in rig.workers:
                await server.server.stop(None)
            async with asyncio.timeout(PATIENCE):
                while (await rig.call(None, None, WATCH, metadata=forged))[0] != "UNAVAILABLE":
                    await asyncio.sleep(0.02)
            assert (await rig.call(rig.alice.key, "m" * 10_000, CREATE))[0] == "UNAVAILABLE"
    lines = [line for line in (tmp_path / "log").read_text().splitlines() if '"flags":"U' in line]
    assert len(lines) >= 2
    assert max(map(len, lines)) < 500
    assert not any("somebody-else" in line for line in lines)
    assert f'"key_id":"{rig.alice.id}"' in lines[-1]


@pytest.mark.parametrize("path", ["Check", "Watch"])
async def test_a_query_makes_no_way_around_the_key(rig: Rig, path: str) -> None:
    asked = f"/grpc.health.v1.Health/{path}?{'q' * 10_000}"
    assert await rig.code(None, path=asked) == "UNAUTHENTICATED"
    assert await rig.code(rig.alice.key, path=asked) == "UNIMPLEMENTED"


@pytest.mark.parametrize("path", ["/shoal.v1.Uploads/Create", REFLECTION])
async def test_a_method_with_a_query_is_none(rig: Rig, path: str) -> None:
    assert await rig.code(rig.alice.key, path=path) == "OK"
    assert await rig.code(rig.alice.key, path=f"{path}?x=1") == "UNIMPLEMENTED"


async def test_an_upload_does_not_go_on_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.router.uploads.MOST_SECONDS", 1.0)
    monkeypatch.setattr("shoal.router.uploads.MAX_CONNECTIONS", 1)
    door, place = free(), free()
    begun = asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        while await reader.read(1000):
            pass
        writer.close()

    store = await asyncio.start_server(swallow, *place)
    async with running(tmp_path, uploads=door, store=place), store, asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection(*door)
        writer.write(b"PUT /x HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
        await begun.wait()
        other, late = await asyncio.open_connection(*door)
        assert await other.read() == b"", "there is room for one connection"
        answer = asyncio.create_task(reader.readline())
        while not answer.done():
            writer.write(b"x")
            await asyncio.wait({answer}, timeout=0.2)
        assert answer.result().startswith(b"HTTP/1.1 408")
        for each in (writer, late):
            each.close()


async def test_the_key_is_checked_before_anything_else(rig: Rig) -> None:
    for key in (None, "", "wrong", rig.alice.key + "x"):
        for model in ("yolo", "unknown", None):
            assert await rig.code(key, model) == "UNAUTHENTICATED"
        assert await rig.code(key, path="/shoal.v1.Uploads/Create") == "UNAUTHENTICATED"
        assert await rig.code(key, path="/no.such/Service") == "UNAUTHENTICATED"


async def test_refusals_say_what_is_wrong(rig: Rig) -> None:
    assert await rig.call(rig.alice.key, "unknown") == (
        "NOT_FOUND",
        "no model 'unknown' is served here; 'shoal status' lists those that are",
    )
    assert await rig.call(rig.alice.key, None) == (
        "NOT_FOUND",
        "no model named; send its name as the metadata x-model-name",
    )
    assert await rig.code(rig.alice.key, path="/no.such/Service") == "UNIMPLEMENTED"
    assert "x-api-key" in (await rig.call(None))[1]


async def test_a_revoked_key_is_refused_on_an_open_connection(rig: Rig) -> None:
    assert await rig.code(rig.alice.key) == "OK"
    api_keys.revoke(rig.home.keys, rig.alice.id)
    await rig.until("UNAUTHENTICATED", rig.alice.key)


async def test_a_new_key_and_its_permissions_act_without_a_restart(rig: Rig) -> None:
    bob = api_keys.create(rig.home.keys, "bob", models=["resnet*"])
    await rig.until("PERMISSION_DENIED", bob.key)
    assert await rig.code(rig.alice.key) == "OK"
    api_keys.revoke(rig.home.keys, rig.alice.id)  # now no key may call yolo
    await rig.until("UNAUTHENTICATED", rig.alice.key)
    assert await rig.code(bob.key) == "PERMISSION_DENIED"


async def test_a_new_model_is_routed_without_a_restart(rig: Rig) -> None:
    assert await rig.code(rig.alice.key, "resnet-50") == "NOT_FOUND"
    add_model(rig.home, "resnet-50")
    await rig.until("OK", rig.alice.key, "resnet-50")
    async with asyncio.timeout(PATIENCE):
        assert (await rig.open_stream("resnet-50"))[0] == "worker-0"


async def test_a_model_that_no_worker_serves_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shoal.router.served.PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr("shoal.router.keeper.POLL_SECONDS", 0.05)
    async with running(tmp_path) as rig:
        assert await rig.code(rig.alice.key) == "OK"  # nobody knows
        rig.workers[0].echo.serves = ["resnet"]
        await rig.until("UNAVAILABLE", rig.alice.key)
        assert (await rig.call(rig.alice.key))[1].startswith("no worker serves model 'yolo', though one should")
        rig.workers[0].echo.serves = ["resnet", "yolo"]
        await rig.until("OK", rig.alice.key)


async def test_a_key_has_its_own_rate_limit(rig: Rig) -> None:
    slow = api_keys.create(rig.home.keys, "slow", requests_per_second=0.01)
    await rig.until("OK", slow.key)
    code, text = await rig.call(slow.key)
    assert code == "RESOURCE_EXHAUSTED"
    assert "rate limit" in text
    assert await rig.code(rig.alice.key) == "OK"


async def test_health_needs_no_key(rig: Rig) -> None:
    check = rig.channel.unary_unary("/grpc.health.v1.Health/Check")
    answer = health_pb2.HealthCheckResponse.FromString(await check(b"", timeout=PATIENCE))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_needs_a_key(rig: Rig) -> None:
    path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    message = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    assert (await rig.call("secret", path=path, message=message))[0] == "UNAUTHENTICATED"
    seen = await rig.call(rig.alice.key, path=path, message=message)
    assert seen["server"] == "worker-0"


async def test_who_has_no_key_can_send_no_large_message_to_health(rig: Rig) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.channel.unary_unary("/grpc.health.v1.Health/Check")(b"x" * 66_000, timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    watch = rig.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=PATIENCE)
    first = health_pb2.HealthCheckResponse.FromString(await watch.read())
    assert first.status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


async def test_health_says_whether_a_worker_is_there(rig: Rig) -> None:
    async def until(status: int) -> None:
        check = health_pb2_grpc.HealthStub(rig.channel).Check
        async with asyncio.timeout(PATIENCE):
            while (await check(health_pb2.HealthCheckRequest())).status != status:  # each a round trip
                await asyncio.sleep(0.02)

    await until(health_pb2.HealthCheckResponse.SERVING)
    await rig.workers[0].set_serving(serving=False)
    await until(health_pb2.HealthCheckResponse.NOT_SERVING)
    await rig.workers[0].set_serving(serving=True)
    await until(health_pb2.HealthCheckResponse.SERVING)


async def test_while_it_leaves_it_is_not_ready_and_alive(rig: Rig) -> None:
    async with aiohttp.ClientSession(f"http://{rig.topology.metrics}") as session, asyncio.timeout(PATIENCE):
        for path, status in (("/ready", 200), ("/alive", 200)):
            async with session.get(path) as answer:
                assert answer.status == status
        await EnvoyAdmin(rig.admin).fail_health()
        for path, status in (("/ready", 503), ("/alive", 200), ("/config_dump", 404)):
            async with session.get(path) as answer:
                assert answer.status == status
        answer = await health_pb2_grpc.HealthStub(rig.channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize(
    "said", [b"", b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])]
)
async def test_who_only_keeps_a_connection_loses_it(rig: Rig, said: bytes) -> None:
    reader, writer = await asyncio.open_connection(*rig.topology.public)
    writer.write(said)
    async with asyncio.timeout(2 * PATIENCE):
        with contextlib.suppress(ConnectionResetError):
            while await reader.read(1024):  # settings and pings, until the end
                pass
    writer.close()


async def test_a_long_traceparent_is_cut(rig: Rig) -> None:
    seen = await rig.call(rig.alice.key, metadata=[("traceparent", "0" * 15_000)])
    assert seen["traceparent"] == "0" * 55
    assert "traceparent" not in await rig.call(rig.alice.key)
    right = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert (await rig.call(rig.alice.key, metadata=[("traceparent", right)]))["traceparent"] == right


@pytest.mark.parametrize("kind", ["application/xml", "application/jsonp", "application/grpcx", "text/html"])
async def test_who_speaks_neither_grpc_nor_json_is_told_what_is_spoken(rig: Rig, kind: str) -> None:
    headers = {"x-api-key": rig.alice.key, "x-model-name": "yolo", "content-type": kind}
    async with aiohttp.ClientSession(f"http://{rig.topology.public}", headers=headers) as session:
        async with session.post(CLASSIFY, data=b"{}") as answer:
            assert (answer.status, answer.content_type) == (415, "application/json")
            assert "this port takes POST: gRPC" in (await answer.json())["message"]
        async with session.get(CLASSIFY, headers={"content-type": "application/grpc"}) as answer:
            assert answer.headers.get("grpc-status") or answer.status == 405


async def test_uploads_go_to_a_worker(rig: Rig) -> None:
    seen = await rig.call(rig.alice.key, None, path="/shoal.v1.Uploads/Create")
    assert (seen["server"], seen["x-client-id"]) == ("worker-0", rig.alice.id)


async def test_a_large_message_is_refused(rig: Rig) -> None:
    assert await rig.code(rig.alice.key, message=b"x" * 65_000) == "OK"
    code, text = await rig.call(rig.alice.key, message=b"x" * 66_000)
    assert (code, text) == ("RESOURCE_EXHAUSTED", "the request is larger than 65536 bytes")


async def test_deadlines_are_capped_and_defaulted_and_told_to_the_batcher(tmp_path: Path) -> None:
    limits = "router: {default_timeout_seconds: 1, max_timeout_seconds: 5}"
    async with running(tmp_path, service=limits) as rig:
        assert (await rig.call(rig.alice.key))["remaining"] <= 5.1
        call = rig.channel.unary_unary(CLASSIFY)
        metadata = [("x-api-key", rig.alice.key), ("x-model-name", "yolo")]
        assert json.loads(await call(b"", metadata=metadata))["remaining"] <= 1.1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"wait", metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_callers_can_not_steer_envoy_by_its_own_headers(rig: Rig) -> None:
    steering = [("x-envoy-upstream-rq-timeout-ms", "1"), ("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "9")]
    seen = await rig.call(rig.alice.key, metadata=steering)
    assert {name for name, _ in steering}.isdisjoint(seen)
    assert seen["remaining"] > 1


@pytest.mark.parametrize("groups", [{}, {"yolo": free()}])
async def test_too_many_calls_in_flight_are_refused_at_once(tmp_path: Path, groups: dict[str, Endpoint]) -> None:
    async with running(tmp_path, service="router: {max_requests: 1}", groups=groups) as rig:
        first = asyncio.create_task(rig.code(rig.alice.key, message=b"wait"))
        await rig.batcher.echo.waiting.wait()
        assert (await rig.call(rig.alice.key))[0] == "RESOURCE_EXHAUSTED"
        rig.batcher.echo.gate.set()
        assert await first == "OK"


async def test_a_batcher_that_is_away_is_unavailable(rig: Rig) -> None:
    await rig.batcher.server.stop(None)
    assert await rig.call(rig.alice.key) == ("UNAVAILABLE", "the service is away; trying again may help")
    failed = {"envoy_cluster_name": "batcher/shared", "envoy_response_code_class": "5"}
    metrics = f"http://{rig.topology.metrics}/stats/prometheus"
    assert await sample(metrics, "envoy_cluster_upstream_rq_xx_total", **failed) == 1  # as the parser calls it


@pytest.mark.parametrize("group", [free(), Endpoint("no-such-name.invalid", 1)])
async def test_while_a_models_own_batcher_is_away_the_shared_one_answers(tmp_path: Path, group: Endpoint) -> None:
    async with running(tmp_path, groups={"yolo": group}) as rig:
        assert {await rig.code(rig.alice.key) for _ in range(50)} == {"OK"}
        assert (await asyncio.gather(*(rig.code(rig.alice.key) for _ in range(50)))) == ["OK"] * 50


async def test_a_models_own_batcher_answers_once_it_is_there(tmp_path: Path) -> None:
    group = free()
    async with running(tmp_path, groups={"yolo": group}) as rig, asyncio.timeout(PATIENCE):
        assert (await rig.call(rig.alice.key))["server"] == "batcher"
        own = Server("own", group)
        await own.server.start()
        while (await rig.call(rig.alice.key))["server"] != "own":  # each call a round trip
            await asyncio.sleep(0.02)
        assert {(await rig.call(rig.alice.key))["server"] for _ in range(50)} == {"own"}
        await own.server.stop(None)
        assert {await rig.code(rig.alice.key) for _ in range(50)} == {"OK"}


async def test_http_1_gets_json(rig: Rig) -> None:
    async with aiohttp.ClientSession(f"http://{rig.topology.public}") as session:
        for headers, status in (({}, 401), ({"x-api-key": rig.alice.key}, 404)):
            async with session.get("/", headers=headers) as answer:
                assert (answer.status, answer.content_type) == (status, "application/json")
                assert (await answer.json())["code"] in {5, 16}


async def test_a_worker_that_takes_batches_gets_them_ready_or_not(rig: Rig) -> None:
    await rig.workers[0].health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    await asyncio.sleep(1)  # two of the load balancer's health checks
    async with asyncio.timeout(PATIENCE):
        assert (await rig.open_stream())[0] == "worker-0"


async def test_batching_streams_are_spread_evenly(tmp_path: Path) -> None:
    async with running(tmp_path, workers=2) as rig, asyncio.timeout(PATIENCE):
        streams = [await rig.open_stream() for _ in range(6)]
        assert sorted(name for name, _ in streams) == ["worker-0"] * 3 + ["worker-1"] * 3


async def test_a_draining_worker_gets_no_new_streams_and_keeps_its_own(tmp_path: Path) -> None:
    async with running(tmp_path, workers=2) as rig, asyncio.timeout(PATIENCE):
        parked = dict([await rig.open_stream(), await rig.open_stream()])
        await rig.workers[1].set_serving(serving=False)
        streams = []
        while [name for name, _ in streams[-3:]] != [
            "worker-0"
        ] * 3:  # against the count of streams: a tie is no chance
            streams.append(await rig.open_stream())
        await parked["worker-1"].write(b"still there")
        assert await parked["worker-1"].read() == b"still there"


async def test_a_stream_for_an_unknown_model_is_not_found(rig: Rig) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rig.open_stream("unknown")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_no_secret_is_in_envoys_dump_of_its_configuration(rig: Rig) -> None:
    async with asking(rig.admin) as session, session.get("/config_dump") as answer:
        text = await answer.text()
    assert stat.S_IMODE(rig.admin.stat().st_mode) == 0o600
    assert "api_key_auth" in text
    assert rig.alice.key not in text


async def test_a_connection_that_grew_old_is_replaced_and_loses_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, service="router: {max_connection_seconds: 1}") as rig, asyncio.timeout(60):
        slow = asyncio.create_task(rig.code(rig.alice.key, message=b"wait"))
        await rig.batcher.echo.waiting.wait()
        _, parked = await rig.open_stream()
        admin = EnvoyAdmin(rig.admin)
        # A second each; the first ones are told for good that they are over after 5 s.
        for listener in ("public", "balancer"):
            while await admin.statistic(f"http.{listener}.downstream_cx_max_duration_reached") < 7:
                assert await rig.code(rig.alice.key) == "OK"
                _, stream = await rig.open_stream()
                stream.cancel()
                await asyncio.sleep(0.05)  # a call now and then uses each connection as well as many do
        await parked.write(b"still there")
        assert await parked.read() == b"still there"
        rig.batcher.echo.gate.set()
        assert await slow == "OK"


async def test_statistics_name_a_pool_and_a_batcher_with_dots(tmp_path: Path) -> None:
    pool, group = "team.a", "resnet_50.v1"
    async with running(tmp_path, service=f"pools: {{{pool}: {{}}}}", pool=pool, groups={group: free()}) as rig:
        assert await rig.code(rig.alice.key) == "OK"
        await rig.open_stream()
        address = f"http://{rig.topology.metrics}/stats/prometheus"
        async with aiohttp.ClientSession() as session, session.get(address) as answer:
            families = list(text_string_to_metric_families(await answer.text()))
    named = defaultdict(set)
    for line in chain.from_iterable(family.samples for family in families):
        named[line.labels.get("envoy_cluster_name")].add(line.name)
    assert named.keys() - {None} == {
        f"pool/{pool}",
        f"batcher/{group}",
        f"own/{group}",
        f"streams/{group}",
        f"own-streams/{group}",
        "batcher/shared",
        "streams/shared",
        "workers",
        "pictures",
        "health",
        "admin",
    }
    assert {"envoy_cluster_membership_healthy", "envoy_cluster_circuit_breakers_default_rq_open"} <= named[
        f"pool/{pool}"
    ]
    assert not [name for name in named[None] if name.startswith("envoy_cluster_") and "_manager_" not in name]
    assert named[f"batcher/{group}"] <= named["batcher/shared"]


async def test_draining_answers_what_is_in_flight_and_refuses_what_comes(rig: Rig) -> None:
    call = asyncio.create_task(rig.code(rig.alice.key, message=b"wait"))
    await rig.batcher.echo.waiting.wait()
    parked, stream = await rig.open_stream()
    rig.stop.set()
    async with asyncio.timeout(PATIENCE):
        await until_refused(rig.topology.public)
    await stream.write(b"still there")
    assert await stream.read() == b"still there"
    assert parked == (await rig.open_stream())[0]
    rig.batcher.echo.gate.set()
    assert await call == "OK"
    assert await rig.router == 0


async def test_a_busy_port_is_named(rig: Rig, tmp_path: Path) -> None:
    keeper = ConfigKeeper(service_file=None, topology_file=tmp_path / "topology.json", home=rig.home)
    with pytest.raises(ConfigurationError, match=str(rig.topology.public.port)):
        await serve(keeper, asyncio.Event())


async def test_the_command_ends_with_envoy(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    api_keys.create(home.keys, "alice")
    topology = Topology(public=free(), balancer=free(), batchers={"shared": [free()]}, pools={"default": [free()]})
    topology.save(tmp_path / "topology.json")
    arguments = ("serve", "router", "--topology", tmp_path / "topology.json", "--home", home.root)
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "shoal", *map(str, arguments))
    admin = admin_socket(home.run / "router")
    await until_live(admin)
    await EnvoyAdmin(admin).quit()
    async with asyncio.timeout(PATIENCE):
        assert await process.wait() == 0


def asking(admin: Path) -> aiohttp.ClientSession:
    return aiohttp.ClientSession("http://admin", connector=aiohttp.UnixConnector(str(admin)))


async def until_live(admin: Path) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                async with asking(admin) as session, session.get("/ready"):
                    return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)


async def test_callers_of_json_get_one_status_of_http_for_a_code_whoever_answers(rig: Rig) -> None:
    """Envoy's transcoder goes by a table of its own; workers and the console by ours."""
    url = f"http://{rig.topology.public}/v1/models/yolo:classify"
    async with aiohttp.ClientSession(headers={"x-api-key": rig.alice.key}) as session:
        heard = {}
        for code in Code:
            rig.batcher.echo.refuses = rpc.STATUS[code]
            if code is not Code.OK:
                async with session.post(url, json={}) as answer:
                    heard[code] = answer.status
                    assert (await answer.json())["code"] == code
    assert heard | {Code.OK: 200} == HTTP_STATUS
