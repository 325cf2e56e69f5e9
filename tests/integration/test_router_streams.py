"""Streams of calls through a router with a real Envoy; the batcher is a small echo server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from shoal.runtime.endpoint import Endpoint
from shoal.service import api_keys
from support.metrics import sample
from support.ports import free
from support.router_rig import CLASSIFY, CLASSIFY_STREAM, FLOOD_BYTES, OPTIONS, PATIENCE, Rig, Server, running

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

SMALL_WINDOW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_536)]
"""A client that takes no more than that before anybody reads."""
Stream = Any
"""grpc's stubs know no stream of bytes."""


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncGenerator[Rig]:
    async with running(tmp_path) as made, asyncio.timeout(2 * PATIENCE):
        yield made


async def told(stream: Stream) -> Any:
    """The stream's metadata as the batcher saw it."""
    return json.loads(await stream.read())


async def refused(stream: Stream) -> tuple[str, str]:
    """How a stream ended that its caller neither wrote to nor closed."""
    return (await stream.code()).name, await stream.details()


@pytest.mark.parametrize("method", ["Classify", "Detect", "Segment"])
async def test_both_ways_flow_before_the_caller_has_ended(rig: Rig, method: str) -> None:
    stream = rig.open_calls(rig.alice.key, path=f"/shoal.v1.Inference/{method}Stream")
    assert (await told(stream))["server"] == "batcher"
    for message in (b"one", b"x" * 1_000_000, b"two"):  # larger than any unary request
        await stream.write(message)
        assert await stream.read() == message
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    assert await stream.code() is grpc.StatusCode.OK


async def test_the_batcher_is_told_who_calls_and_what_time_each_call_has(tmp_path: Path) -> None:
    limits = "router: {default_timeout_seconds: 1.5, max_timeout_seconds: 5}"
    forged = [
        ("x-client-id", "somebody-else"),
        ("x-shoal-timeouts", "1,1"),
        ("x-priority", "bulk"),
        ("x-shoal-affinity", "cat"),
    ]
    async with running(tmp_path, service=limits) as rig, asyncio.timeout(PATIENCE):
        seen = await told(rig.open_calls(rig.alice.key, metadata=forged))
        assert seen["x-client-id"] == rig.alice.id
        assert seen["x-api-key"].startswith(f"{rig.alice.id}?")
        assert seen["x-shoal-timeouts"] == "1500000,5000000"
        assert seen["x-priority"] == "bulk"
        assert seen["remaining"] > 3000, "the calls' limits are not the stream's"
        assert (await told(rig.open_calls(rig.alice.key, timeout=100)))["remaining"] <= 102, "whole seconds travel"
        unary = await rig.call(rig.alice.key, metadata=forged)
        assert "x-shoal-timeouts" not in unary
        assert unary["x-priority"] == "bulk"
        assert unary["x-shoal-affinity"] == "cat"


async def test_a_stream_is_refused_as_a_call_would_be_and_at_once(rig: Rig) -> None:
    bob = api_keys.create(rig.home.keys, "bob", models=["resnet*"])
    await rig.until("PERMISSION_DENIED", bob.key)
    for key, model, path in (
        (None, "yolo", CLASSIFY),
        ("wrong", "yolo", CLASSIFY),
        (bob.key, "yolo", CLASSIFY),
        (rig.alice.key, "unknown", CLASSIFY),
        (rig.alice.key, None, CLASSIFY),
        (rig.alice.key, "yolo", "/shoal.v1.Inference/Clasify"),
        (rig.alice.key, "yolo", "/no.such/Service"),
    ):
        assert await refused(rig.open_calls(key, model, f"{path}Stream")) == await rig.call(key, model, path)
    assert (await refused(rig.open_calls(rig.alice.key, path=f"{CLASSIFY_STREAM}?x")))[0] == "UNIMPLEMENTED"


async def test_a_stream_of_a_model_that_nobody_serves_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shoal.router.served.PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr("shoal.router.keeper.POLL_SECONDS", 0.05)
    async with running(tmp_path) as rig, asyncio.timeout(PATIENCE):
        rig.workers[0].echo.serves = ["resnet"]
        await rig.until("UNAVAILABLE", rig.alice.key)
        assert await refused(rig.open_calls(rig.alice.key)) == await rig.call(rig.alice.key)


async def test_streams_are_no_calls_to_a_keys_rate(rig: Rig) -> None:
    slow = api_keys.create(rig.home.keys, "slow", requests_per_second=0.01)
    await rig.until("OK", slow.key)
    assert await rig.code(slow.key) == "RESOURCE_EXHAUSTED"
    for _ in range(3):
        assert (await told(rig.open_calls(slow.key)))["x-api-key"].endswith("rps=0.01")


async def test_callers_that_read_nothing_stop_no_other_stream_and_no_call(rig: Rig) -> None:
    unread = 100
    async with contextlib.AsyncExitStack() as channels:
        floods = []
        for _ in range(unread):
            channel = await channels.enter_async_context(
                grpc.aio.insecure_channel(str(rig.topology.public), options=[*OPTIONS, *SMALL_WINDOW])
            )
            flood = rig.open_calls(rig.alice.key, channel=channel)
            await flood.write(b"flood")
            floods.append(flood)
        echo = rig.batcher.echo
        before = -1
        while echo.flooded > before:  # until none goes on
            before = echo.flooded
            for _ in range(20):
                assert await rig.code(rig.alice.key) == "OK"
        assert 0 < echo.flooded * FLOOD_BYTES < unread * 2**20
        stream = rig.open_calls(rig.alice.key)
        await told(stream)
        await stream.write(b"x" * 1_000_000)
        assert await stream.read() == b"x" * 1_000_000


async def test_what_a_batcher_does_not_read_is_held_back_at_its_caller(rig: Rig) -> None:
    stream = rig.open_calls(rig.alice.key)
    await told(stream)
    await stream.write(b"flood")
    written = 0

    async def write() -> None:
        nonlocal written
        while True:
            await stream.write(bytes(FLOOD_BYTES))
            written += FLOOD_BYTES

    writing = asyncio.create_task(write())
    before = -1
    while written > before:
        before = written
        for _ in range(20):
            assert await rig.code(rig.alice.key) == "OK"
    writing.cancel()
    assert written < 8 * 2**20
    stream.cancel()
    await rig.batcher.echo.ended.wait()


async def test_too_many_streams_are_refused_and_calls_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.router.clusters.MAX_STREAMS", 2)
    async with running(tmp_path) as rig, asyncio.timeout(PATIENCE):
        streams = [rig.open_calls(rig.alice.key) for _ in range(2)]
        for stream in streams:
            await told(stream)
        code, text = await refused(rig.open_calls(rig.alice.key))
        assert (code, text) == ("RESOURCE_EXHAUSTED", "too many calls in flight; try again later")
        assert await rig.code(rig.alice.key) == "OK"


async def test_a_stream_may_be_silent_for_longer_than_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = "router: {default_timeout_seconds: 0.1, max_timeout_seconds: 0.1}"
    monkeypatch.setattr("shoal.router.call_routes._SILENT_SECONDS", 3.0)
    async with running(tmp_path, service=limits) as rig, asyncio.timeout(PATIENCE):
        stream, other = rig.open_calls(rig.alice.key), rig.open_calls(rig.alice.key)
        await told(stream)
        await told(other)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.5):  # a call's most, and the second that a listener allows beyond
                await other.read()
        await stream.write(b"still there")
        assert await stream.read() == b"still there"
        assert await stream.code() is not grpc.StatusCode.OK  # at last


@pytest.mark.parametrize("group", [free(), Endpoint("no-such-name.invalid", 1)])
async def test_while_a_models_own_batcher_is_away_the_shared_one_has_its_streams(
    tmp_path: Path, group: Endpoint
) -> None:
    async with running(tmp_path, groups={"yolo": group}) as rig, asyncio.timeout(PATIENCE):
        for _ in range(20):
            assert (await told(rig.open_calls(rig.alice.key)))["server"] == "batcher"


async def test_a_models_own_batcher_gets_its_streams_once_it_is_there(tmp_path: Path) -> None:
    group = free()
    async with running(tmp_path, groups={"yolo": group}) as rig, asyncio.timeout(PATIENCE):
        own = Server("own", group)
        await own.set_serving(serving=True)
        await own.server.start()
        answered = ""
        while answered != "own":
            stream = rig.open_calls(rig.alice.key)
            answered = (await told(stream))["server"]
            stream.cancel()
        await own.server.stop(None)


async def test_a_batcher_that_is_away_is_unavailable_and_counted(rig: Rig) -> None:
    await rig.batcher.server.stop(None)
    assert await refused(rig.open_calls(rig.alice.key)) == (
        "UNAVAILABLE",
        "the service is away; trying again may help",
    )
    failed = {"envoy_cluster_name": "streams/shared", "envoy_response_code_class": "5"}
    metrics = f"http://{rig.topology.metrics}/stats/prometheus"
    assert await sample(metrics, "envoy_cluster_upstream_rq_xx_total", **failed) == 1  # as the parser calls it


async def test_a_stream_keeps_no_leaving_router_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.router.process.DRAIN_SECONDS", 1.0)
    async with running(tmp_path) as rig, asyncio.timeout(PATIENCE):
        stream = rig.open_calls(rig.alice.key)
        await told(stream)
        rig.stop.set()
        assert await stream.code() is grpc.StatusCode.UNAVAILABLE
        assert await rig.router == 0
