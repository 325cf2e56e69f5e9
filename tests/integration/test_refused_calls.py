"""What the router says to callers who ask for what there isn't, or for too much; and a batcher that hangs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2
from PIL import Image

from shoal.client import Client
from shoal.local.plan import PlanFiles
from shoal.service import api_keys
from shoal.service.api_keys import Key, load_keys
from shoal.service.identity import HEADER, Identity
from shoal.service.topology import Topology
from shoal.v1 import inference_pb2 as pb
from support.callers import CHECK, CLASSIFY, OPTIONS, PATIENT, WATCH, Caller, caller
from support.pictures import encode
from support.stack import Stack, running_stack
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from pathlib import Path

PICTURE = encode(Image.new("RGB", (64, 64), (250, 0, 0)))


@pytest.fixture(scope="module")
def bad(stack: Stack) -> Caller:
    return caller(stack.target, stack.api_key, PICTURE)


async def test_a_method_that_there_is_not_is_told_those_that_there_are(bad: Caller) -> None:
    async with bad.channels(1) as (channel,):
        call = bad.start(channel, "/shoal.v1.Inference/Clasify")
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "it has Classify, Detect, Segment" in await call.details()


async def test_as_much_metadata_as_is_allowed_goes_all_the_way(bad: Caller) -> None:
    async with bad.channels(1) as (channel,):
        call = bad.start(channel, CLASSIFY, *[(f"x-{n}", "1" * 100) for n in range(98)])
        assert await call.code() is grpc.StatusCode.OK, await call.details()


@pytest.mark.parametrize("metadata", [[("x-note", "0" * 20_000)], [(f"x-{n}", "1") for n in range(200)]])
async def test_too_much_metadata_is_told_so(bad: Caller, metadata: list[tuple[str, str]]) -> None:
    async with bad.channels(1) as (channel,):
        call = bad.start(channel, CLASSIFY, *metadata)
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "metadata is over 100 entries or 16 KiB" in await call.details()


async def test_health_is_answered_while_all_watches_are_taken(bad: Caller) -> None:
    async with bad.channels(2) as (channel, other):
        watches = [channel.unary_stream(WATCH)(b"", timeout=60) for _ in range(100)]
        for watch in watches:
            assert health_pb2.HealthCheckResponse.FromString(await watch.read()).status
        late = other.unary_stream(WATCH)(b"", timeout=60)
        assert await late.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        answer = health_pb2.HealthCheckResponse.FromString(await other.unary_unary(CHECK)(b"", timeout=60))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        for watch in watches:
            watch.cancel()


@pytest.mark.parametrize("key_id", ["invented", "a key's own"])
async def test_a_forged_identity_gets_nothing_behind_the_router(stack: Stack, bad: Caller, key_id: str) -> None:
    known = next(iter(load_keys(stack.home.keys)))
    forged = Key(id=known.id if key_id != "invented" else key_id, key="f" * 24, owner=known.owner)
    metadata = (("x-client-id", forged.id), (HEADER, Identity.of(forged).write()), ("x-model-name", "tiny"))
    topology = Topology.load(PlanFiles.of(stack.home).topology)
    image = pb.ImageRequest(api_key=forged.key, image_uuid=bad.image_uuid, model_name="tiny")
    for where, method, message in (
        (topology.pools["default"][0], "/shoal.v1.Uploads/Create", pb.CreateUploadsRequest(api_key=forged.key)),
        (topology.batchers["shared"][0], CLASSIFY, image),
    ):
        async with grpc.aio.insecure_channel(str(where), options=OPTIONS) as channel:
            call = channel.unary_unary(method)(message.SerializeToString(), timeout=PATIENT, metadata=metadata)
            assert await call.code() is grpc.StatusCode.UNAUTHENTICATED, await call.details()


async def test_a_key_that_was_just_made_may_call_and_bring_pictures(stack: Stack) -> None:
    key = api_keys.create(stack.home.keys, "newcomer")
    async with grpc.aio.insecure_channel(stack.target, options=OPTIONS) as channel, asyncio.timeout(PATIENT):
        create = channel.unary_unary("/shoal.v1.Uploads/Create")
        message = pb.CreateUploadsRequest(api_key=key.key).SerializeToString()
        while (code := await (call := create(message, metadata=(("x-api-key", key.key),))).code()).name != "OK":
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert "'shoal keys create' makes one" in await call.details(), "the router alone may not know it yet"
    with Client(stack.target, api_key=key.key) as client:
        assert client.classify(PICTURE, model="tiny")
    api_keys.revoke(stack.home.keys, key.id)


async def test_a_batcher_that_hangs_is_left(tmp_path: Path) -> None:
    with running_stack(tmp_path / "home", models=add_tiny_classifier, service="models: {tiny: {batchers: 2}}") as stack:
        lone = caller(stack.target, stack.api_key, PICTURE)
        hung = _envoy(stack.part("batcher-tiny-1").pid)
        async with lone.channels(1) as (channel,), asyncio.timeout(200):
            await lone.all([lone.start(channel) for _ in range(20)])
            assert lone.heard == {"OK": 20}
            hung.suspend()
            try:
                # Those in its hands end, and far before their deadline.
                caught = [lone.start(channel) for _ in range(10)]
                codes = [(await call.code()).name for call in caught]
                assert set(codes) <= {"OK", "UNAVAILABLE"}
                assert "UNAVAILABLE" in codes
                lone.heard.clear()
                for _ in range(50):
                    await lone.hear(lone.start(channel, timeout=30))
                assert lone.heard == {"OK": 50}
            finally:
                hung.resume()


def _envoy(pid: int | None) -> psutil.Process:
    process = psutil.Process(pid)
    return next((child for child in process.children() if child.name() == "envoy"), process)
