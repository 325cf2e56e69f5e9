"""A neighbour with plain gRPC and no second try, beside each way of one caller to be a bad one: no call of it fails."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from typing import TYPE_CHECKING

import aiohttp
import grpc
import pytest
from hostile_pictures import Maker, raw_png
from PIL import Image

from shoal.client import AsyncClient
from shoal.service import api_keys
from shoal.service.home import Home
from shoal.v1 import inference_pb2 as pb
from support.callers import CHECK, CLASSIFY, HARMLESS, PATIENT, WATCH, Caller, caller
from support.good_neighbour import good_neighbour
from support.neighbour import Neighbour
from support.pictures import encode
from support.stack import Stack, running_stack
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Attack = Callable[["Bad"], Awaitable[None]]

QUIET_SECONDS = 4.0
"""Before an attack, where its cost is written down; else the neighbour's first calls are enough."""
PICTURE = encode(Image.new("RGB", (64, 64), (250, 0, 0)))


class Bad(Caller):
    """A caller who is up to something, in a service whose own addresses it can reach."""

    def __init__(self, stack: Stack) -> None:
        made = caller(stack.target, stack.api_key, PICTURE)
        super().__init__(made.target, made.key, made.image_uuid)
        self.stack = stack


async def cancels(bad: Bad) -> None:
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


async def deadlines(bad: Bad) -> None:
    """2,000 calls that can't be answered in time."""
    async with bad.channels(10) as channels:
        await bad.all([bad.start(channel, timeout=0.05) for channel in channels for _ in range(200)])


async def one_channels_deadlines(bad: Bad) -> None:
    """The same on one connection, with patient calls among them."""
    async with bad.channels(1) as (channel,):
        hasty = [bad.start(channel, timeout=0.05) for _ in range(1500)]
        patient = [bad.start(channel) for _ in range(50)]
        await bad.all(hasty)
        assert {(await call.code()).name for call in patient} <= {"OK", "RESOURCE_EXHAUSTED"}


async def burst(bad: Bad) -> None:
    """4,000 at once."""
    async with bad.channels(8) as channels:
        await bad.all([bad.start(channel, timeout=10) for channel in channels for _ in range(500)])


async def inventions(bad: Bad) -> None:
    """Methods that there aren't, and paths that only look like one."""
    paths = [f"/shoal.v1.Inference/x{number}%00" for number in range(300)]
    paths += ["/shoal.v1.Inference/%ff", "/shoal.v1.Inference/\xe9", "/shoal.v1.Inference/%43lassify"] * 50
    paths += ["/shoal.v1.Inference//Classify", "/shoal.v1.Inference/%2e/Classify", f"{CLASSIFY}/", f"{CLASSIFY}?x"] * 50
    paths += ["/shoal.v1.Uploads/x", "/grpc.health.v1.Health/List", "/shoal.batching.v1.Batching/Compute", "/"] * 50
    async with bad.channels(2) as channels:
        calls = [bad.start(channels[number % 2], path, timeout=5) for number, path in enumerate(paths)]
        assert {(await call.code()).name for call in calls} == {"UNIMPLEMENTED"}


async def large_headers(bad: Bad) -> None:
    """15 kB in places where little belongs."""
    long = "0" * 15_000
    async with bad.channels(2) as channels:
        calls = [bad.start(channels[0], CLASSIFY, (name, long)) for name in ("traceparent", "tracestate", "x") * 100]
        await bad.all(calls)


async def health(bad: Bad) -> None:
    """2,000 Checks and 400 Watches, without a key."""
    async with bad.channels(4) as channels:
        watches = [channel.unary_stream(WATCH)(b"", timeout=20) for channel in channels for _ in range(100)]
        checks = [channel.unary_unary(CHECK)(b"", timeout=20) for channel in channels for _ in range(500)]
        assert {(await call.code()).name for call in checks} <= {"OK", "RESOURCE_EXHAUSTED"}
        for watch in watches:
            watch.cancel()


async def silence(bad: Bad) -> None:
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


async def poison(bad: Bad) -> None:
    """Broken pictures, and a slow one that callers give up on: nobody else's decoder, and no worker, is harmed."""
    maker = Maker()
    slow = raw_png(6000, 6000, (16, 6, 4), 1, None)
    async with AsyncClient(bad.target, api_key=bad.key) as client:
        files = [slow, *(maker.make(seed).data for seed in range(60))]
        uuids = await client.upload_many(files)

    def ask(channel: grpc.aio.Channel, uuid: str, seconds: float) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        request = pb.ImageRequest(api_key=bad.key, image_uuid=uuid, model_name="tiny")
        metadata = (("x-api-key", bad.key), ("x-model-name", "tiny"))
        return channel.unary_unary(CLASSIFY)(request.SerializeToString(), timeout=seconds, metadata=metadata)

    async with bad.channels(2) as (one, other):
        calls = [ask(one, uuids[0], 1.0) for _ in range(12)]
        calls += [ask(other, uuid, PATIENT) for uuid in uuids[1:] * 2]
        codes = {(await call.code()).name for call in calls}
    assert codes <= {"OK", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}


async def operators(bad: Bad) -> None:
    """300 slow connections to each address for metrics, and 600 questions about pictures."""
    addresses = [
        part.metrics for part in bad.stack.state().parts if part.metrics and part.role in {"worker", "batcher"}
    ]
    with contextlib.ExitStack() as stack:
        for address in addresses:
            host, port = address.removeprefix("http://").partition("/")[0].rsplit(":", 1)
            for _ in range(300):
                slow = stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
                slow.sendall(b"GET /metrics HTTP/1.1\r\nhost:")
        async with aiohttp.ClientSession() as session:
            questions = [f"{address.rpartition('/')[0]}/requests/{bad.image_uuid}" for address in addresses] * 300
            answers = await asyncio.gather(*map(session.get, questions), return_exceptions=True)
            for answer in answers:
                if isinstance(answer, aiohttp.ClientResponse):
                    answer.release()


async def everything(bad: Bad) -> None:
    """Several at once."""
    await asyncio.gather(cancels(bad), deadlines(bad), inventions(bad), health(bad), poison(bad))


ATTACKS = [
    poison, cancels, deadlines, one_channels_deadlines, burst, inventions, large_headers, health, silence, operators,
    everything,
]  # fmt: skip


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A service that bad neighbours may use."""
    home = Home(tmp_path_factory.mktemp("street") / "home")
    home.root.mkdir()
    api_keys.create(home.keys, "good")
    with running_stack(home.root, models=add_tiny_classifier) as running:
        yield running


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
async def test_no_call_of_a_neighbour_fails(
    street: Stack, neighbours: dict[str, Neighbour], attack: Attack, pytestconfig: pytest.Config
) -> None:
    bad = Bad(street)
    key = next(key.key for key in api_keys.load_keys(street.home.keys) if key.owner == "good")
    who = caller(street.target, key, PICTURE)
    async with asyncio.timeout(200), good_neighbour(who.target, who.key, who.image_uuid) as good:
        if pytestconfig.getoption("--chaos-results"):
            await asyncio.sleep(QUIET_SECONDS)  # what it is compared with
        good.next_phase()
        await attack(bad)
        good.next_phase()
        quiet, beside, after = await good.end()
    neighbours[attack.__name__] = Neighbour.of(quiet.seconds, beside.seconds, len(beside.troubles))
    assert not quiet.troubles + beside.troubles + after.troubles
    assert bad.heard.keys() <= HARMLESS
