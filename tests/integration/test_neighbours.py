"""Somebody else's calls, with plain gRPC and no second try, beside each way of one caller to be a bad neighbour."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections import Counter
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2
from PIL import Image

from shoal import keys
from shoal.client import Client
from shoal.home import Home
from shoal.v1 import inference_pb2 as pb
from support.pictures import encode
from support.stack import Stack, running_stack
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    Attack = Callable[["Caller"], Awaitable[None]]

CLASSIFY = "/shoal.v1.Inference/Classify"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
PATIENT = 30.0
"""Seconds of a neighbour's deadline."""
LEAST = 10
"""Calls of the neighbour's beside an attack, and the same number after it."""
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
HARMLESS = {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"}
"""What an overloaded caller may be told. Never that the service is away."""


class Caller:
    """Plain gRPC with one key; ``heard`` counts what came back."""

    def __init__(self, target: str, key: str, image_uuid: str) -> None:
        self.target, self.key = target, key
        self.message = pb.ImageRequest(api_key=key, image_uuid=image_uuid, model_name="tiny").SerializeToString()
        self.heard: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def channels(self, count: int) -> AsyncIterator[list[grpc.aio.Channel]]:
        """Connections of their own."""
        async with contextlib.AsyncExitStack() as stack:
            made = [grpc.aio.insecure_channel(self.target, options=OPTIONS) for _ in range(count)]
            for channel in made:
                await stack.enter_async_context(channel)
                await channel.channel_ready()
            yield made

    def start(
        self, channel: grpc.aio.Channel, method: str = CLASSIFY, *more: tuple[str, str], timeout: float = PATIENT
    ) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        metadata = (("x-api-key", self.key), ("x-model-name", "tiny"), *more)
        return channel.unary_unary(method)(self.message, timeout=timeout, metadata=metadata)

    async def hear(self, call: grpc.aio.Call) -> None:
        code = await call.code()
        told = await call.details() if code not in {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED} else ""
        self.heard[f"{code.name}: {told}" if code.name not in HARMLESS else code.name] += 1

    async def all(self, calls: list[grpc.aio.Call]) -> None:
        await asyncio.gather(*map(self.hear, calls))


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service that bad neighbours may use."""

    home = Home(tmp_path_factory.mktemp("street") / "home")
    home.root.mkdir()
    keys.create(home.keys, "good")
    with running_stack(home.root, models=add_tiny_classifier) as running:
        yield running


@pytest.fixture(scope="module")
def callers(street: Stack) -> tuple[Caller, Caller]:
    """A bad neighbour and a good one, each with a picture."""
    picture = encode(Image.new("RGB", (64, 64), (250, 0, 0)))
    good = next(key.key for key in keys.load_keys(street.home.keys) if key.owner == "good")
    return _caller(street, street.api_key, picture), _caller(street, good, picture)


def _caller(street: Stack, key: str, picture: bytes) -> Caller:
    with Client(street.target, api_key=key) as client:
        return Caller(street.target, key, str(client.upload(picture)))


async def cancels(bad: Caller) -> None:
    """3,000 calls that are taken back, some at once and some late."""
    chance = random.Random(1)
    async with bad.channels(4) as channels:
        for _ in range(3):
            calls = [bad.start(channel) for channel in channels for _ in range(250)]
            for call in calls:
                if chance.random() < 0.5:
                    await asyncio.sleep(0)
                call.cancel()
            await bad.all(calls)


async def deadlines(bad: Caller) -> None:
    """2,000 calls that can't be answered in time."""
    async with bad.channels(10) as channels:
        await bad.all([bad.start(channel, timeout=0.05) for channel in channels for _ in range(200)])


async def one_channels_deadlines(bad: Caller) -> None:
    """The same on one connection, with patient calls among them."""
    async with bad.channels(1) as (channel,):
        hasty = [bad.start(channel, timeout=0.05) for _ in range(1500)]
        patient = [bad.start(channel) for _ in range(50)]
        await bad.all(hasty)
        assert {(await call.code()).name for call in patient} <= {"OK", "RESOURCE_EXHAUSTED"}


async def burst(bad: Caller) -> None:
    """4,000 at once."""
    async with bad.channels(8) as channels:
        await bad.all([bad.start(channel, timeout=10) for channel in channels for _ in range(500)])


async def inventions(bad: Caller) -> None:
    """Methods that there aren't, and paths that only look like one."""
    paths = [f"/shoal.v1.Inference/x{number}%00" for number in range(300)]
    paths += ["/shoal.v1.Inference/%ff", "/shoal.v1.Inference/\xe9", "/shoal.v1.Inference/%43lassify"] * 50
    paths += ["/shoal.v1.Inference//Classify", "/shoal.v1.Inference/%2e/Classify", f"{CLASSIFY}/", f"{CLASSIFY}?x"] * 50
    paths += ["/shoal.v1.Uploads/x", "/grpc.health.v1.Health/List", "/shoal.batching.v1.Batching/Compute", "/"] * 50
    async with bad.channels(2) as channels:
        calls = [bad.start(channels[number % 2], path, timeout=5) for number, path in enumerate(paths)]
        assert {(await call.code()).name for call in calls} == {"UNIMPLEMENTED"}


async def large_headers(bad: Caller) -> None:
    """15 kB in places where little belongs."""
    long = "0" * 15_000
    async with bad.channels(2) as channels:
        calls = [bad.start(channels[0], CLASSIFY, (name, long)) for name in ("traceparent", "tracestate", "x") * 100]
        await bad.all(calls)


async def health(bad: Caller) -> None:
    """2,000 Checks and 400 Watches, without a key."""
    async with bad.channels(4) as channels:
        watches = [channel.unary_stream(WATCH)(b"", timeout=20) for channel in channels for _ in range(100)]
        checks = [channel.unary_unary(CHECK)(b"", timeout=20) for channel in channels for _ in range(500)]
        assert {(await call.code()).name for call in checks} <= {"OK", "RESOURCE_EXHAUSTED"}
        for watch in watches:
            watch.cancel()


async def silence(bad: Caller) -> None:
    """1,500 connections that say nothing, and as many that say half a word."""
    host, _, port = bad.target.rpartition(":")
    held = []
    with contextlib.ExitStack() as stack:
        for number in range(3000):
            held.append(stack.enter_context(socket.create_connection((host, int(port)), timeout=5)))
            if number % 2:
                held[-1].sendall(b"PRI * HTTP/2.0\r\n")
            if not number % 100:
                await asyncio.sleep(0)
        async with bad.channels(1) as (channel,):
            assert await bad.start(channel).code() is grpc.StatusCode.OK


async def everything(bad: Caller) -> None:
    """Several at once."""
    await asyncio.gather(cancels(bad), deadlines(bad), inventions(bad), health(bad))


@contextlib.asynccontextmanager
async def neighbour(good: Caller) -> AsyncIterator[list[str]]:
    """Calls one after the other meanwhile and for a while after; what isn't OK is in the list."""
    troubles: list[str] = []
    over = asyncio.Event()

    async def live(channel: grpc.aio.Channel) -> None:
        beside = after = 0
        while beside < LEAST or after < LEAST:
            call = good.start(channel)
            if await call.code() is not grpc.StatusCode.OK:
                troubles.append(f"{await call.code()}: {await call.details()}")
            beside, after = beside + 1, after + over.is_set()

    async with good.channels(2) as channels:
        living = [asyncio.create_task(live(channel)) for channel in channels]
        try:
            yield troubles
        finally:
            over.set()
            await asyncio.gather(*living)


ATTACKS = [
    cancels, deadlines, one_channels_deadlines, burst, inventions, large_headers, health, silence, everything,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
async def test_no_call_of_a_neighbour_fails(callers: tuple[Caller, Caller], attack: Attack) -> None:
    bad, good = callers
    bad.heard.clear()
    async with asyncio.timeout(120), neighbour(good) as troubles:
        await attack(bad)
    assert not troubles
    assert bad.heard.keys() <= HARMLESS


async def test_a_method_that_there_is_not_is_told_those_that_there_are(callers: tuple[Caller, Caller]) -> None:
    bad, _ = callers
    async with bad.channels(1) as (channel,):
        call = bad.start(channel, "/shoal.v1.Inference/Clasify")
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "it has Classify, Detect, Segment" in await call.details()


async def test_as_much_metadata_as_is_allowed_goes_all_the_way(callers: tuple[Caller, Caller]) -> None:
    bad, _ = callers
    async with bad.channels(1) as (channel,):
        call = bad.start(channel, CLASSIFY, *[(f"x-{n}", "1" * 100) for n in range(98)])
        assert await call.code() is grpc.StatusCode.OK, await call.details()


@pytest.mark.parametrize("metadata", [[("x-note", "0" * 20_000)], [(f"x-{n}", "1") for n in range(200)]])
async def test_too_much_metadata_is_told_so(callers: tuple[Caller, Caller], metadata: list[tuple[str, str]]) -> None:
    bad, _ = callers
    async with bad.channels(1) as (channel,):
        call = bad.start(channel, CLASSIFY, *metadata)
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "metadata is over 100 entries or 16 KiB" in await call.details()


async def test_health_is_answered_while_all_watches_are_taken(callers: tuple[Caller, Caller]) -> None:
    bad, _ = callers
    async with bad.channels(2) as (channel, other):
        watches = [channel.unary_stream(WATCH)(b"", timeout=30) for _ in range(100)]
        for watch in watches:
            assert health_pb2.HealthCheckResponse.FromString(await watch.read()).status
        late = other.unary_stream(WATCH)(b"", timeout=30)
        assert await late.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        answer = health_pb2.HealthCheckResponse.FromString(await other.unary_unary(CHECK)(b"", timeout=30))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        for watch in watches:
            watch.cancel()


async def test_a_batcher_that_hangs_is_left(tmp_path: Path) -> None:
    with running_stack(tmp_path / "home", models=add_tiny_classifier, service="models: {tiny: {batchers: 2}}") as stack:
        caller = _caller(stack, stack.api_key, encode(Image.new("RGB", (64, 64), (250, 0, 0))))
        hung = _envoy(stack.part("batcher-tiny-1").pid)
        async with caller.channels(1) as (channel,), asyncio.timeout(60):
            await caller.all([caller.start(channel) for _ in range(20)])
            assert caller.heard == {"OK": 20}
            hung.suspend()
            try:
                # Those in its hands end, and far before their deadline.
                caught = [caller.start(channel) for _ in range(10)]
                codes = [(await call.code()).name for call in caught]
                assert set(codes) <= {"OK", "UNAVAILABLE"}
                assert "UNAVAILABLE" in codes
                caller.heard.clear()
                for _ in range(50):
                    await caller.hear(caller.start(channel, timeout=5))
                assert caller.heard == {"OK": 50}
            finally:
                hung.resume()


def _envoy(pid: int | None) -> psutil.Process:
    process = psutil.Process(pid)
    return next((child for child in process.children() if child.name() == "envoy"), process)
