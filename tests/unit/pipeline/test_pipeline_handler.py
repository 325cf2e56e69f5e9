"""A pipeline as a batching stream sees it: batches of pictures, each answered once, with the keys that hold."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from google.protobuf import json_format

from shoal.batching.v1 import batching_pb2
from shoal.errors import Code, InvalidRequest
from shoal.modelconfig.model import Task
from shoal.pipeline.admission import METHOD, Admission
from shoal.pipeline.analysis import Asked, Running
from shoal.pipeline.handler import PipelineHandler
from shoal.pipeline.meter import Meter
from shoal.pipeline.steps import Step
from shoal.pipeline.times import Times
from shoal.runtime.priority import Priority
from shoal.service.api_keys import Key, KeyRing
from shoal.service.identity import Identity
from shoal.v1 import inference_pb2 as pb
from shoal.v1 import json_pb2
from shoal.worker.access import Access

if TYPE_CHECKING:
    from shoal.pipeline.calls import Caller
    from shoal.pipeline.handler import PipelineBatch

UUID = "4b5ef40f-1f6b-4b4f-9d52-1b8f6b7ab4a8"
KEY = Key(id="key-1", key="k" * 24, owner="alice", models=("street",), requests_per_second=3.0)
OTHER = Key(id="key-2", key="o" * 24, owner="alice", prefix="elsewhere/", models=("street",))
BOB = Key(id="bob", key="b" * 24, owner="bob")
RING = KeyRing((KEY, OTHER, BOB))
STEP = Step("finder", "finder", Task.DETECTION, then=(Step("species", "species", Task.CLASSIFICATION),))


class Detector:
    """Finds nothing, when it may; remembers who asked."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.callers: list[Caller] = []
        self.left = 0

    async def __call__(
        self, step: Step, request: pb.ImageRequest, caller: Caller, deadline: float, affinity: str
    ) -> object:
        self.callers.append(caller)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        return pb.DetectReply()


@pytest.fixture
def detector() -> Detector:
    return Detector()


def handler(detector: Detector, *, reads_keys: bool = False, max_pictures: int = 8) -> PipelineHandler:
    running = Running("street", STEP, detector, Times(STEP), Meter("street"))
    access = Access(RING, (lambda: None) if reads_keys else None)
    return PipelineHandler(running, Admission("street", access), max_pictures)


def item(index: int = 0, key: Key = KEY, identity: str | None = None, **fields: object) -> batching_pb2.BatchItem:
    request = pb.ImageRequest(**{"api_key": key.key, "image_uuid": UUID, "model_name": "street", **fields})
    return batching_pb2.BatchItem(
        index=index,
        request=request.SerializeToString(),
        owner=KEY.id,
        identity=Identity.of(KEY).write() if identity is None else identity,
        timeout_us=10_000_000,
    )


async def all_of(batch: PipelineBatch) -> list[batching_pb2.BatchItemResult]:
    return [result async for group in batch.finish() for result in group]


async def one(handler: PipelineHandler, asked: batching_pb2.BatchItem) -> batching_pb2.BatchItemResult:
    batch = handler.begin(METHOD)
    batch.add(asked)
    (result,) = await all_of(batch)
    return result


async def test_each_picture_is_answered_once_as_soon_as_it_is_ready(detector: Detector) -> None:
    batch = handler(detector).begin(METHOD)
    batch.add(item(0), item(1, api_key="wrong" * 5))
    batch.add(item(2))
    groups = batch.finish()
    first = await anext(groups)
    assert [(result.index, result.code) for result in first] == [(1, Code.UNAUTHENTICATED)]
    detector.gate.set()
    rest = [result async for group in groups for result in group]
    assert sorted((result.index, result.code) for result in rest) == [(0, 0), (2, 0)]
    assert pb.AnalyzeReply.FromString(rest[0].response).model_name == "street"


async def test_a_batch_keeps_its_permit_while_its_pictures_wait_for_room(detector: Detector) -> None:
    served = handler(detector, max_pictures=3)
    first, second = served.begin(METHOD), served.begin(METHOD)
    first.add(item(0), item(1))
    assert await anext(first.finish()) == []
    second.add(item(2), item(3))
    waiting = asyncio.ensure_future(anext(second.finish()))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    assert len(detector.callers) == 3  # the fourth has asked nothing
    first.abandon()
    assert await waiting == []
    assert detector.left == 2
    second.abandon()


async def test_what_is_answered_while_others_wait_for_room_is_told_early(detector: Detector) -> None:
    batch = handler(detector, max_pictures=1).begin(METHOD)
    told: list[tuple[int, int]] = []
    batch.tell_early(lambda results: told.extend((result.index, result.code) for result in results))
    batch.add(item(0), item(1), item(2, api_key="wrong" * 5))
    results = asyncio.ensure_future(all_of(batch))
    for _ in range(10):
        await asyncio.sleep(0)
    assert told == [(2, Code.UNAUTHENTICATED)]
    detector.gate.set()
    assert [(result.index, result.code) for result in await results] == [(1, 0)]
    assert told[1:] == [(0, 0)]


async def test_one_that_waits_for_room_is_withdrawn_for_nothing(detector: Detector) -> None:
    batch = handler(detector, max_pictures=1).begin(METHOD)
    batch.add(item(0), item(1))
    for _ in range(5):
        await asyncio.sleep(0)
    batch.withdraw(1)
    detector.gate.set()
    assert {result.index: result.code for result in await all_of(batch)} == {0: 0, 1: Code.CANCELLED}
    assert len(detector.callers) == 1


async def test_a_picture_that_is_withdrawn_gets_a_result_and_asks_no_more(detector: Detector) -> None:
    batch = handler(detector).begin(METHOD)
    batch.add(item(0), item(1))
    for _ in range(3):
        await asyncio.sleep(0)
    batch.withdraw(0)
    batch.withdraw(0)
    batch.withdraw(99)
    detector.gate.set()
    results = {result.index: result.code for result in await all_of(batch)}
    assert results == {0: Code.CANCELLED, 1: 0}
    assert detector.left == 1


async def test_one_that_is_withdrawn_before_it_begins_gets_a_result_too(detector: Detector) -> None:
    batch = handler(detector).begin(METHOD)
    batch.add(item(0))
    batch.withdraw(0)
    assert [result.code for result in await all_of(batch)] == [Code.CANCELLED]
    assert detector.callers == []


def test_only_analyze_is_served(detector: Detector) -> None:
    handler(detector).check(METHOD)
    with pytest.raises(InvalidRequest, match="'street' is a pipeline: call Analyze"):
        handler(detector).check("/shoal.v1.Inference/Detect")


@pytest.mark.parametrize("reads_keys", [False, True], ids=["believes", "looks up"])
async def test_models_are_asked_for_the_caller_without_a_key_a_rate_or_leave(
    detector: Detector, reads_keys: bool
) -> None:
    detector.gate.set()
    assert (await one(handler(detector, reads_keys=reads_keys), item())).code == 0
    (caller,) = detector.callers
    shown = Identity.parse(caller.identity)
    assert shown is not None
    assert (caller.key_id, caller.owner, shown.owner, shown.prefix) == ("key-1", "alice", "alice", "alice/")
    assert (shown.requests_per_second, shown.pipeline) == (0.0, "street")
    assert KEY.key not in caller.identity
    assert "identity" not in repr(caller)
    # A worker of a model that the key may not call lets it in, whether it looks keys up or not.
    for newest in (None, lambda: None):
        grant = Access(RING, newest).grant(caller.key_id, caller.identity, "", "finder")
        assert (grant.owner, grant.prefix) == ("alice", "alice/")


async def test_the_messages_key_says_where_the_pictures_are(detector: Detector) -> None:
    detector.gate.set()
    assert (await one(handler(detector), item(key=OTHER))).code == 0
    assert Identity.parse(detector.callers[0].identity).prefix == "elsewhere/"


@pytest.mark.parametrize(("told", "kept"), [(2_000_000, 2_500_000), (0, 0)])
def test_the_wait_in_the_batcher_does_not_make_a_picture_older(told: int, kept: int) -> None:
    sent = item(max_age_us=told)
    sent.queued_us = 500_000
    ((_, asked),) = Admission("street", Access(RING)).admit([sent], 0.0)
    assert isinstance(asked, Asked)
    assert asked.max_age_us == kept


@pytest.mark.parametrize(
    ("asked", "code", "told"),
    [
        (item(key=BOB), Code.UNAUTHENTICATED, "different owners"),
        (item(model_name="road"), Code.INVALID_ARGUMENT, "differs from the x-model-name"),
        (item(top_k=3, score_threshold=0.0), Code.INVALID_ARGUMENT, "top_k, score_threshold: 'street' is a pipeline"),
        (item(regions=[pb.PictureRegion()]), Code.INVALID_ARGUMENT, "regions"),
        (batching_pb2.BatchItem(request=b"\xff"), Code.INVALID_ARGUMENT, "not a shoal.v1.ImageRequest"),
    ],
)
async def test_what_may_not_be_asked_asks_nobody(
    detector: Detector, asked: batching_pb2.BatchItem, code: Code, told: str
) -> None:
    result = await one(handler(detector), asked)
    assert (result.code, told in result.message) == (code, True), result.message
    assert detector.callers == []


async def test_a_caller_of_json_and_one_with_a_token_have_no_key(detector: Detector) -> None:
    detector.gate.set()
    message = json_pb2.JsonMessage(model_name="street")
    json_format.ParseDict({"image_uuid": UUID}, message.json)
    told = Identity.of(KEY).write() + "&json=1"
    as_json = batching_pb2.BatchItem(request=message.SerializeToString(), owner=KEY.id, identity=told)
    assert (await one(handler(detector), as_json)).code == 0
    token = f"token:idp:alice?v=1&owner=alice&prefix=alice%2F&sha256={RING.proof}&rps=5.0&exp=99&json=1"
    assert (await one(handler(detector, reads_keys=True), item(identity=token, api_key=""))).code == 0
    for caller in detector.callers:
        shown = Identity.parse(caller.identity)
        assert (shown.pipeline, shown.expires, shown.owner) == ("street", None, "alice")


async def test_priority_and_trace_go_along(detector: Detector) -> None:
    detector.gate.set()
    asked = item()
    asked.priority, asked.traceparent = batching_pb2.PRIORITY_BULK, "trace"
    await one(handler(detector), asked)
    assert (detector.callers[0].priority, detector.callers[0].traceparent) == (Priority.BULK, "trace")
