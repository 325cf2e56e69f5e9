from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

import grpc
import obstore
import pytest
from obstore.store import MemoryStore

from shoal.client import AsyncClient, Classification, Detection, MaskForm, Priority, Segmentation
from shoal.errors import (
    Cancelled,
    ConfigurationError,
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    NotFound,
    Overloaded,
    Unavailable,
)
from shoal.modelconfig.model import Task
from shoal.v1 import inference_pb2 as pb
from support.fake_service import API_KEY, KNOWN, MISSING, PROMPT, FakeService
from support.stream_service import StreamService, serving_streams

if TYPE_CHECKING:
    from pathlib import Path

AWAY = grpc.StatusCode.UNAVAILABLE


async def test_classify_by_reference(client: AsyncClient, service: FakeService) -> None:
    answer = await client.classify(KNOWN, "cats", top_k=3)
    assert isinstance(answer, Classification)
    assert (answer.image_uuid, answer.model_name, answer.model_version) == (KNOWN, "cats", 1)
    assert (answer.classes[0].index, answer.classes[0].label, answer.classes[0].probability) == (7, "cock", 0.75)
    timing = answer.timing
    assert (timing.queue_us, timing.fetch_us, timing.decode_us, timing.compute_us, timing.batch_size) == (1, 2, 3, 4, 5)
    assert timing.upload_us == 0 < timing.total_us
    request = service.requests[0]
    assert (request.api_key, request.model_name, request.top_k) == (API_KEY, "cats", 3)
    assert service.metadata[0]["x-model-name"] == "cats"
    assert service.metadata[0]["x-api-key"] == API_KEY


async def test_detect_passes_its_threshold_on_only_if_there_is_one(client: AsyncClient, service: FakeService) -> None:
    answer = await client.detect(UUID(KNOWN), "texts")
    await client.detect(KNOWN, "texts", score_threshold=0.5)
    assert isinstance(answer, Detection)
    assert answer.boxes[0].x == 0.25
    assert [request.HasField("score_threshold") for request in service.requests] == [False, True]


async def test_segment_asks_for_form_and_size(client: AsyncClient, service: FakeService) -> None:
    for form in MaskForm:
        found = await client.segment(KNOWN, "colours", mask_form=form, mask_size="picture", score_threshold=0.25)
        assert (found.form, found.width, found.height, found.class_bytes) == (form, 3, 2, 1)
        assert found.class_map() == bytes([0, 1, 1, 0, 1, 255])
        assert [row.tolist() for row in found.rows()] == [[0, 1, 1], [0, 1, found.unseen]]
        assert [(region.label, region.pixels) for region in found.regions] == [("thing", 3), ("background", 2)]
        assert found.to_png().startswith(b"\x89PNG")
    sent = service.requests
    assert [request.mask_form for request in sent] == [0, 1, 2]
    assert {(request.mask_size, request.score_threshold) for request in sent} == {(1, 0.25)}


ASKED = {
    "classify": lambda client, **options: client.classify(KNOWN, "model", **options),
    "detect": lambda client, **options: client.detect(KNOWN, "model", **options),
    "segment": lambda client, **options: client.segment(KNOWN, "model", **options),
    "analyze": lambda client, **options: client.analyze(KNOWN, "street", **options),
    "infer": lambda client, **options: client.infer("detection", KNOWN, "model", **options),
    "map": lambda client, **options: anext(client.map([KNOWN], "model", **options)),
    "map_analyze": lambda client, **options: anext(client.map_analyze([KNOWN], "street", **options)),
}


@pytest.mark.parametrize("method", ASKED)
async def test_how_old_what_is_kept_may_be_travels_and_such_calls_go_to_one_worker(
    client: AsyncClient, service: FakeService, method: str
) -> None:
    await ASKED[method](client)
    await ASKED[method](client, max_age_seconds=1.5)
    assert [request.max_age_us for request in service.requests] == [0, 1_500_000]
    assert [told.get("x-shoal-affinity") for told in service.metadata] == [None, KNOWN]


@pytest.mark.parametrize("option", ["mask_form", "mask_size"])
async def test_a_mask_that_there_is_not(client: AsyncClient, option: str) -> None:
    with pytest.raises(InvalidRequest, match="'jpeg': expected one of"):
        await client.segment(KNOWN, "colours", **{option: "jpeg"})


async def test_a_mask_of_another_size_than_it_says(client: AsyncClient, service: FakeService) -> None:
    service.mask_width = 4
    with pytest.raises(Internal, match="mask of another size"):
        await client.segment(KNOWN, "colours", mask_form=MaskForm.CLASS_MAP)
    service.mask_width = 2**25
    with pytest.raises(Internal, match="the limit is"):
        await client.segment(KNOWN, "colours")


async def test_a_picture_is_uploaded_first(client: AsyncClient, service: FakeService, tmp_path: Path) -> None:
    picture = tmp_path / "a.jpg"
    picture.write_bytes(b"jpeg")
    answer = await client.classify(picture, "cats")
    assert service.objects == {f"{answer.image_uuid}.jpg": b"jpeg"}
    assert answer.timing.total_us >= answer.timing.upload_us > 0


async def test_unavailable_is_tried_again(client: AsyncClient, service: FakeService) -> None:
    service.failures.extend([AWAY, AWAY])
    await client.classify(KNOWN, "cats")
    assert service.calls["Classify"] == 3


async def test_other_errors_are_raised_as_they_are(client: AsyncClient, service: FakeService) -> None:
    service.failures.append(grpc.StatusCode.RESOURCE_EXHAUSTED)
    with pytest.raises(Overloaded, match="scripted"):
        await client.classify(KNOWN, "cats")
    with pytest.raises(NotFound):
        await client.classify(MISSING, "cats")
    assert service.calls["Classify"] == 2


@pytest.mark.parametrize("model", ["", "Katzenköpfe", "two words", "line\nbreak"])
async def test_a_model_name_that_can_be_none(client: AsyncClient, service: FakeService, model: str) -> None:
    with pytest.raises(InvalidRequest, match="expected the name of a model"):
        await client.classify(KNOWN, model)
    assert service.calls["Classify"] == 0


async def test_a_service_that_stays_away_is_unavailable(service: FakeService) -> None:
    service.failures.extend([AWAY] * 1000)
    async with AsyncClient(service.target, api_key=API_KEY, timeout_seconds=0.2) as client:
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await client.classify(KNOWN, "cats")


async def test_a_deadline_ends_a_slow_call(client: AsyncClient, service: FakeService) -> None:
    service.gate = asyncio.Event()
    with pytest.raises(DeadlineExceeded):
        await client.classify(KNOWN, "cats", timeout_seconds=0.1)


async def test_a_reply_for_another_image_is_refused(client: AsyncClient, service: FakeService) -> None:
    service.reply_uuid = MISSING
    with pytest.raises(Internal, match=KNOWN):
        await client.classify(KNOWN, "cats")


@pytest.mark.parametrize("image", ["../../etc/passwd", "cat.jpg", "", 7])
async def test_what_is_no_image_is_refused_here(client: AsyncClient, service: FakeService, image: str) -> None:
    with pytest.raises(InvalidRequest, match="expected a Path"):
        await client.classify(image, "cats")
    assert not service.calls


async def test_a_cancelled_caller_is_cancelled_as_usual(client: AsyncClient, service: FakeService) -> None:
    service.gate = asyncio.Event()
    task = asyncio.create_task(client.classify(KNOWN, "cats"))
    await service.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_close_lets_calls_in_flight_finish(client: AsyncClient, service: FakeService) -> None:
    service.gate = asyncio.Event()
    task = asyncio.create_task(client.classify(KNOWN, "cats"))
    await service.started.wait()
    closing = asyncio.create_task(client.close())
    await asyncio.sleep(0)
    with pytest.raises(Cancelled, match="closed"):
        await client.classify(KNOWN, "cats")
    service.gate.set()
    assert (await task).image_uuid == KNOWN
    await closing


async def test_close_ends_what_takes_longer_than_its_grace(client: AsyncClient, service: FakeService) -> None:
    service.gate = asyncio.Event()
    task = asyncio.create_task(client.classify(KNOWN, "cats"))
    await service.started.wait()
    await client.close(grace_seconds=0)
    with pytest.raises(Cancelled, match="closed"):
        await task


async def test_a_client_that_was_never_used_closes_and_closes_again() -> None:
    client = AsyncClient(api_key=API_KEY)
    await client.close()
    await client.close()


async def test_connect_fails_at_once_where_nobody_listens(unused_tcp_port: int) -> None:
    async with AsyncClient(f"127.0.0.1:{unused_tcp_port}", api_key=API_KEY) as client:
        with pytest.raises(Unavailable, match=f"no service answers at 127.0.0.1:{unused_tcp_port}"):
            await client.connect()


async def test_connect_succeeds_where_a_service_listens(client: AsyncClient) -> None:
    await client.connect()
    await client.connect()


async def test_the_key_is_in_no_repr_and_no_error(service: FakeService) -> None:
    client = AsyncClient(service.target, api_key="hush-hush")
    assert "hush" not in repr(client)
    with pytest.raises(ConfigurationError) as caught:
        AsyncClient(api_key="hush\nhush")
    assert "hush" not in str(caught.value)


async def test_own_credentials_write_to_the_bucket(service: FakeService) -> None:
    store = MemoryStore()
    async with AsyncClient(service.target, api_key=API_KEY, store=store, key_prefix="alice/") as client:
        answer = await client.classify(b"jpeg", "cats")
    written = await obstore.get_async(store, f"alice/{answer.image_uuid}.jpg")
    assert bytes(await written.bytes_async()) == b"jpeg"
    assert service.calls["Create"] == 0


async def test_map_yields_errors_as_outcomes(client: AsyncClient, service: FakeService, tmp_path: Path) -> None:
    images = [KNOWN, MISSING, tmp_path / "none.jpg", b"jpeg"]
    outcomes = [outcome async for outcome in client.map(images, "cats", ordered=True)]
    assert [outcome.image for outcome in outcomes] == images
    assert [type(outcome.error) for outcome in outcomes] == [type(None), NotFound, NotFound, type(None)]
    assert outcomes[0].unwrap().image_uuid == KNOWN
    with pytest.raises(NotFound, match="no such image"):
        outcomes[1].unwrap()


async def test_map_bounds_what_is_in_flight(client: AsyncClient, service: FakeService) -> None:
    outcomes = [o async for o in client.map([KNOWN] * 200, "texts", task="detection", concurrency=4)]
    assert all(isinstance(outcome.result, Detection) for outcome in outcomes)
    assert sorted(outcome.index for outcome in outcomes) == list(range(200))
    assert service.most_in_flight <= 4


async def test_map_can_be_left_early(client: AsyncClient) -> None:
    outcomes = client.map([KNOWN] * 100, "cats")
    assert (await anext(outcomes)).error is None
    await outcomes.aclose()


async def test_map_refuses_what_it_cannot_do(client: AsyncClient) -> None:
    with pytest.raises(InvalidRequest, match="concurrency 0"):
        await anext(client.map([KNOWN], "cats", concurrency=0))
    with pytest.raises(InvalidRequest, match="'nonsense': expected one of classification, detection, segmentation"):
        await anext(client.map([KNOWN], "cats", task="nonsense"))


async def test_map_analyze_yields_what_a_pipeline_finds_and_errors_as_outcomes(
    client: AsyncClient, service: FakeService, tmp_path: Path
) -> None:
    """What fails of one box is a part of its picture's answer; what fails of a picture is its outcome's error."""
    images = [KNOWN, MISSING, tmp_path / "none.jpg", b"jpeg"]
    outcomes = [outcome async for outcome in client.map_analyze(images, "street", ordered=True)]
    assert [(outcome.index, outcome.image) for outcome in outcomes] == list(enumerate(images))
    assert [type(outcome.error) for outcome in outcomes] == [type(None), NotFound, NotFound, type(None)]
    found = outcomes[0].unwrap()
    assert (found.image_uuid, found.model_name) == (KNOWN, "street")
    assert isinstance(found.findings[0].of("then.0").error, DeadlineExceeded)
    with pytest.raises(NotFound, match="no such image"):
        outcomes[1].unwrap()
    assert service.calls["Analyze"] == 3


async def test_map_analyze_passes_its_options_on_and_bounds_what_is_in_flight(
    client: AsyncClient, service: FakeService
) -> None:
    asked = client.map_analyze(
        [KNOWN] * 50,
        "street",
        concurrency=4,
        region=(0.25, 0.0, 0.5, 1.0),
        mask_form="runs",
        mask_size="picture",
        priority="bulk",
    )
    outcomes = [outcome async for outcome in asked]
    assert sorted(outcome.index for outcome in outcomes) == list(range(50))
    assert 0 < service.most_in_flight <= 4
    request = service.requests[-1]
    assert (request.region.x, request.region.width, request.top_k) == (0.25, 0.5, 0)
    assert (request.mask_form, request.mask_size) == (pb.MASK_FORM_RUNS, pb.MASK_SIZE_PICTURE)
    assert service.metadata[-1]["x-priority"] == "bulk"


async def test_map_analyze_tries_again_and_keeps_each_pictures_deadline(
    client: AsyncClient, service: FakeService
) -> None:
    service.failures.extend([grpc.StatusCode.UNAVAILABLE] * 2)
    assert [each.error async for each in client.map_analyze([KNOWN] * 3, "street")] == [None] * 3
    service.gate = asyncio.Event()
    late = [each.error async for each in client.map_analyze([KNOWN] * 3, "street", timeout_seconds=0.05)]
    assert [type(error) for error in late] == [DeadlineExceeded] * 3


async def test_map_analyze_can_be_left_early_and_refuses_what_it_cannot_do(
    client: AsyncClient, service: FakeService
) -> None:
    outcomes = client.map_analyze([KNOWN] * 100, "street", concurrency=2)
    assert (await anext(outcomes)).error is None
    await outcomes.aclose()
    assert service.calls["Analyze"] < 100
    with pytest.raises(InvalidRequest, match="concurrency 0"):
        await anext(client.map_analyze([KNOWN], "street", concurrency=0))


async def test_upload_many_keeps_the_order(client: AsyncClient, service: FakeService) -> None:
    pictures = [bytes([n]) for n in range(20)]
    uuids = await client.upload_many(pictures)
    assert [service.objects[f"{uuid}.jpg"] for uuid in uuids] == pictures


async def test_infer_goes_by_task(client: AsyncClient) -> None:
    assert isinstance(await client.infer(Task.DETECTION, KNOWN, "texts"), Detection)
    assert isinstance(await client.infer(Task.SEGMENTATION, KNOWN, "colours"), Segmentation)


def classified(message: bytes) -> bytes:
    request = pb.ImageRequest.FromString(message)
    return pb.ClassifyReply(image_uuid=request.image_uuid, model_name=request.model_name).SerializeToString()


def names(number: int) -> list[str]:
    return [f"00000000-0000-4000-8000-{n:012}" for n in range(number)]


async def test_calls_of_a_stream_that_dies_are_answered_all_the_same() -> None:
    async with (
        serving_streams(StreamService(reply=classified)) as service,
        AsyncClient(service.target, api_key=API_KEY, retry=PROMPT, timeout_seconds=60) as client,
    ):
        tasks = [asyncio.create_task(client.classify(name, "cats")) for name in names(600)]
        stream = await service.stream()
        calls = await stream.take(500)  # what went alone meanwhile is no part of them
        await stream.answer(calls[:100])
        stream.end(grpc.StatusCode.UNAVAILABLE.value[0], "upstream reset")
        service.echo = True
        answers = await asyncio.gather(*tasks)
        assert [answer.image_uuid for answer in answers] == names(600)


async def test_map_goes_by_stream_and_each_answer_is_the_one_asked_for() -> None:
    async with (
        serving_streams(StreamService(reply=classified, echo=True)) as service,
        AsyncClient(service.target, api_key=API_KEY) as client,
    ):
        outcomes = [outcome async for outcome in client.map(names(1000), "cats", concurrency=100, priority="bulk")]
        stream = await service.stream()
    assert sorted(outcome.index for outcome in outcomes) == list(range(1000))
    assert all(outcome.unwrap().image_uuid == outcome.image for outcome in outcomes)
    assert stream.metadata["x-priority"] == "bulk"
    assert len(service.unary) < 100


async def test_an_answer_for_another_image_on_a_stream_is_refused_alone() -> None:
    def reply(message: bytes) -> bytes:
        return classified(message).replace(names(8)[7].encode(), MISSING.encode())

    async with (
        serving_streams(StreamService(reply=reply, echo=True)) as service,
        AsyncClient(service.target, api_key=API_KEY, streams=True) as client,
    ):
        outcomes = [outcome async for outcome in client.map(names(20), "cats", ordered=True)]
    assert [outcome.index for outcome in outcomes if outcome.error] == [7]
    assert isinstance(outcomes[7].error, Internal)
    assert service.unary == []


@pytest.mark.parametrize(("own", "call", "sent"), [
    ("interactive", None, None), ("bulk", None, "bulk"), ("interactive", Priority.BULK, "bulk"),
    (Priority.BULK, "interactive", None),
])  # fmt: skip
async def test_priority(service: FakeService, own: str, call: str | None, sent: str | None) -> None:
    async with AsyncClient(service.target, api_key=API_KEY, priority=own) as client:
        await client.infer("detection", KNOWN, "texts", priority=call)
    assert service.metadata[0].get("x-priority") == sent


async def test_a_priority_that_there_is_not(client: AsyncClient) -> None:
    with pytest.raises(InvalidRequest, match="'urgent': expected one of interactive, bulk"):
        await client.classify(KNOWN, "cats", priority="urgent")
    with pytest.raises(InvalidRequest, match="'urgent': expected one of interactive, bulk"):
        AsyncClient(api_key=API_KEY, priority="urgent")
