"""Bad input against the whole service: the right code, and nobody else in the batch notices."""

from __future__ import annotations

import asyncio
import math
import random
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import obstore
import pytest
from PIL import Image

from shoal.client import Client
from shoal.errors import Code
from shoal.pictures.objectstore import load_credentials, open_store
from shoal.pictures.reference import object_key
from shoal.service import api_keys
from shoal.service.home import Home
from shoal.service.spec import ObjectStore as StoreSettings
from shoal.v1 import inference_pb2 as pb
from support.pictures import encode, many_scans, quadrants, resized_header
from support.raw_calls import Answer, Call, RawClient, raw_client
from support.stack import Stack, running_stack
from support.tiny_models import BATCHING, COLOURS, add_tiny_classifier, add_tiny_detector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from obstore.store import ObjectStore

    from shoal.service.api_keys import Key

BATCH = 8
SETTINGS = replace(BATCHING, max_batch_size=BATCH, max_queue_delay_microseconds=20_000_000)  # it goes when it is full
BATCHES = ("shoal_batcher_batch_size_count", "shoal_batcher_batch_size_sum")
MEBIBYTE = 2**20
JPEG = encode(quadrants(640, 480))
PROGRESSIVE = encode(quadrants(), progressive=True)
PICTURES = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250), "grey": (99, 99, 99)}

BAD_PICTURES = {
    "empty": (b"", "is empty"),
    "truncated": (JPEG[: len(JPEG) // 2], "the JPEG is truncated"),
    "cut in its header": (JPEG[:20], "ends inside its header"),
    "random bytes": (random.Random(0).randbytes(10_000), "expected a JPEG, PNG or WebP"),
    "a text": (b"Dear all,\nplease find the picture attached.\n", "expected a JPEG, PNG or WebP"),
    "a decompression bomb": (resized_header(JPEG, 20_000, 20_000), "20000 x 20000 pixels; the limit is 100,000,000"),
    "50 MB": (JPEG + bytes(50 * MEBIBYTE), f"the limit is {32 * MEBIBYTE:,}"),
    "thousands of scans": (many_scans(PROGRESSIVE, 5000), "too many scans"),
}


def shown(value: object) -> str:
    """A parameter in a test's name."""
    return value.name if isinstance(value, Code) else str(value)[:40]


@dataclass(frozen=True)
class Service:
    """The running service and who may call it."""

    stack: Stack
    store: ObjectStore
    alice: Key
    bob: Key
    detecting: Key
    """Alice's too, for the detector alone."""
    uuids: dict[str, str]
    """Alice's pictures: colour to uuid."""
    bobs: str
    """A picture of his."""

    def put(self, data: bytes, owner: Key) -> str:
        """Uploads anything at all."""
        name = str(uuid.uuid4())
        obstore.put(self.store, object_key(owner.prefix, name), data, use_multipart=False)
        return name

    def call(
        self, *, method: str = "Classify", key: str | None = "", model: str | None = "tiny", **fields: Any
    ) -> Call:
        """A good call of Alice's, but for what is given: metadata, and the message's ``fields``."""
        request = {"api_key": self.alice.key, "image_uuid": self.uuids["red"], "model_name": "tiny"} | fields
        return Call(pb.ImageRequest(**request).SerializeToString(), self.alice.key if key == "" else key, model, method)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = Home(tmp_path_factory.mktemp("bad-input") / "home")
    alice, bob = (api_keys.create(home.keys, owner) for owner in ("alice", "bob"))
    detecting = api_keys.create(home.keys, "alice", models=["tiny-detector"])
    with running_stack(home.root, models=add_models) as stack:
        store = open_store(StoreSettings(), load_credentials(home.store_credentials), stack.state().store_url)
        made = Service(stack, store, alice, bob, detecting, {}, "")
        uuids = {name: made.put(encode(Image.new("RGB", (64, 48), rgb)), alice) for name, rgb in PICTURES.items()}
        made = replace(made, uuids=uuids, bobs=made.put(JPEG, bob))
        with Client(stack.target, api_key=alice.key) as client:  # what is slow the first time is not what is tested
            for task, model in (("classification", "tiny"), ("detection", "tiny-detector")):
                assert all(outcome.unwrap() for outcome in client.map([uuids["red"]] * BATCH, model, task=task))
        yield made


def add_models(store: Path) -> None:
    add_tiny_classifier(store, batching=SETTINGS)
    add_tiny_detector(store, batching=SETTINGS)


@pytest.fixture
async def client(service: Service) -> AsyncIterator[RawClient]:
    async with raw_client(service.stack.target) as made:
        yield made


@asynccontextmanager
async def one_full_batch(service: Service) -> AsyncIterator[None]:
    """Makes sure that what is sent meanwhile, and nothing else, travels as one batch."""
    before = [await service.stack.metric("batcher-shared-1", name) for name in BATCHES]
    yield
    after = [await service.stack.metric("batcher-shared-1", name) for name in BATCHES]
    assert after == [before[0] + 1, before[1] + BATCH]


async def amid_good_ones(service: Service, client: RawClient, bad: Call, mates: int = BATCH - 1) -> Answer:
    """The answer to ``bad``, sent in the middle of ``mates`` good calls, whose answers are checked."""
    colours = [COLOURS[number % len(COLOURS)] for number in range(mates)]
    calls = [service.call(image_uuid=service.uuids[colour]) for colour in colours]
    calls.insert(mates // 2, bad)
    async with one_full_batch(service):
        answers = await asyncio.gather(*map(client.send, calls))
        answer = answers.pop(mates // 2)
        assert [mate.label for mate in answers] == colours
    return answer


@pytest.mark.parametrize("kind", BAD_PICTURES)
async def test_a_bad_picture(service: Service, client: RawClient, kind: str) -> None:
    data, reason = BAD_PICTURES[kind]
    bad = service.call(image_uuid=service.put(data, service.alice))
    answer = await amid_good_ones(service, client, bad)
    assert answer.code is Code.INVALID_ARGUMENT
    assert reason in answer.message


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"image_uuid": "00000000-0000-4000-8000-000000000000"}, Code.NOT_FOUND, "no image 00000000-"),
        ({"image_uuid": "../../etc/passwd"}, Code.INVALID_ARGUMENT, "'../../etc/passwd' is not a UUID"),
        ({"image_uuid": ""}, Code.INVALID_ARGUMENT, "is not a UUID"),
        ({"image_uuid": "x" * 60_000}, Code.INVALID_ARGUMENT, "is not a UUID"),
        ({"api_key": ""}, Code.UNAUTHENTICATED, "api_key is missing or unknown"),
        ({"api_key": "shoal_nobody_has_this_key"}, Code.UNAUTHENTICATED, "api_key is missing or unknown"),
        ({"model_name": "other"}, Code.INVALID_ARGUMENT, 'model_name "other" differs'),
        ({"model_version": 9}, Code.INVALID_ARGUMENT, "serves version 1, not 9"),
    ],
    ids=shown,
)
async def test_a_bad_request(
    service: Service, client: RawClient, fields: dict[str, Any], code: Code, reason: str
) -> None:
    answer = await amid_good_ones(service, client, service.call(**fields))
    assert answer.code is code
    assert reason in answer.message


async def test_another_owners_image_is_not_there(service: Service, client: RawClient) -> None:
    missing = await amid_good_ones(service, client, service.call(image_uuid=str(uuid.uuid4())))
    theirs = await amid_good_ones(service, client, service.call(image_uuid=service.bobs))
    assert theirs.code is missing.code is Code.NOT_FOUND
    assert theirs.message == f"no image {service.bobs}"


async def test_keys_of_two_owners(service: Service, client: RawClient) -> None:
    for mixed in (service.call(api_key=service.bob.key), service.call(key=service.bob.key)):
        answer = await amid_good_ones(service, client, mixed)
        assert answer.code is Code.UNAUTHENTICATED
        assert "different owners" in answer.message


async def test_a_payload_key_that_may_not_call_the_model(service: Service, client: RawClient) -> None:
    answer = await amid_good_ones(service, client, service.call(api_key=service.detecting.key))
    assert answer.code is Code.PERMISSION_DENIED
    assert "may not call model 'tiny'" in answer.message


@pytest.mark.parametrize("message", [b"\xff" * 40, b"\x0a\x02\xff\xfe", b"\x12\x7fshort"])
async def test_garbage_instead_of_a_message(service: Service, client: RawClient, message: bytes) -> None:
    answer = await amid_good_ones(service, client, Call(message, service.alice.key, "tiny"))
    assert answer.code is Code.INVALID_ARGUMENT
    assert "not a shoal.v1.ImageRequest" in answer.message


async def test_a_huge_top_k_gives_all_classes(service: Service, client: RawClient) -> None:
    answer = await amid_good_ones(service, client, service.call(top_k=2**32 - 1))
    assert isinstance(answer.reply, pb.ClassifyReply)
    assert len(answer.reply.classes) == len(COLOURS)


@pytest.mark.parametrize("threshold", [-0.1, 1.5, math.inf, math.nan])
async def test_a_score_threshold_out_of_range(service: Service, client: RawClient, threshold: float) -> None:
    detect = {"method": "Detect", "model": "tiny-detector", "model_name": "tiny-detector"}
    calls = [service.call(**detect, score_threshold=threshold), *[service.call(**detect)] * (BATCH - 1)]
    async with one_full_batch(service):
        answer, *mates = await asyncio.gather(*map(client.send, calls))
    assert answer.code is Code.INVALID_ARGUMENT
    assert "is not in [0, 1]" in answer.message
    assert [mate.code for mate in mates] == [Code.OK] * (BATCH - 1)


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"key": None}, Code.UNAUTHENTICATED, "x-api-key is missing, unknown or revoked"),
        ({"key": "shoal_nobody_has_this_key"}, Code.UNAUTHENTICATED, "x-api-key is missing, unknown or revoked"),
        ({"model": None}, Code.NOT_FOUND, "x-model-name"),
        ({"model": "other"}, Code.NOT_FOUND, "no model 'other' is served here"),
        ({"model": "../%REQ(x)%"}, Code.NOT_FOUND, "no model '../%REQ(x)%' is served here"),
        ({"model": "m" * 5000}, Code.NOT_FOUND, f"no model '{64 * 'm'}' is served here"),
        ({"method": "Detect"}, Code.INVALID_ARGUMENT, "'tiny' is for classification: call Classify"),
        ({"method": "Segment"}, Code.INVALID_ARGUMENT, "'tiny' is for classification: call Classify"),
        ({"image_uuid": "x" * 70_000}, Code.RESOURCE_EXHAUSTED, "larger than 65536 bytes"),
    ],
    ids=shown,
)
async def test_what_no_batch_gets_to_see(
    service: Service, client: RawClient, changes: dict[str, Any], code: Code, reason: str
) -> None:
    answer = await amid_good_ones(service, client, service.call(**changes), mates=BATCH)
    assert answer.code is code
    assert reason in answer.message


async def test_a_key_that_may_not_call_the_model(service: Service, client: RawClient) -> None:
    answer = await amid_good_ones(service, client, service.call(key=service.detecting.key), mates=BATCH)
    assert answer.code is Code.PERMISSION_DENIED
    assert "may not call model 'tiny'" in answer.message


async def test_a_revoked_key(service: Service, client: RawClient) -> None:
    second = api_keys.create(service.stack.home.keys, "alice")
    knock = service.call(key=second.key, model=None)  # the key is checked before the model
    in_message = service.call(api_key=second.key)
    async with asyncio.timeout(60):
        while (await client.send(knock)).code is Code.UNAUTHENTICATED:
            await asyncio.sleep(0.02)
        while (await amid_good_ones(service, client, in_message)).code is Code.UNAUTHENTICATED:
            await asyncio.sleep(0.02)
    api_keys.revoke(service.stack.home.keys, second.id)
    async with asyncio.timeout(60):
        while (await client.send(knock)).code is not Code.UNAUTHENTICATED:
            await asyncio.sleep(0.02)
        while (await amid_good_ones(service, client, in_message)).code is not Code.UNAUTHENTICATED:
            await asyncio.sleep(0.02)


async def test_a_client_that_cancels(service: Service, client: RawClient) -> None:
    colours = [COLOURS[number % len(COLOURS)] for number in range(BATCH - 1)]
    mates = [service.call(image_uuid=service.uuids[colour]) for colour in colours]
    async with one_full_batch(service):
        leaves = asyncio.ensure_future(client.send(service.call()))
        await service.stack.until_metric("worker-default-1", "shoal_worker_batches_in_flight", 1)
        leaves.cancel()
        answers = await asyncio.gather(*map(client.send, mates))
    assert [mate.label for mate in answers] == colours
