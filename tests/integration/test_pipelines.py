"""Pipelines through the whole service: the values, whom they are for, and what becomes of them when parts die."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from PIL import Image

from shoal.client import AsyncClient
from shoal.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ShoalError,
    Unauthenticated,
    to_status,
)
from shoal.service import api_keys
from shoal.service.home import Home
from shoal.v1 import inference_pb2 as pb
from support.blows import at_work
from support.stack import Stack, running_stack, shoal
from support.tiny_models import add_tiny_classifier, add_tiny_detector, add_tiny_segmenter, add_tiny_yolo
from support.token_issuer import AUDIENCE, ISSUER, Issuer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from shoal.client import Box

SERVICE = """\
router: {{tokens: {{company: {{issuer: {issuer!r}, audiences: [{audience}], jwks_file: {root}/jwks.json,
  models_claim: models}}}}}}
pools: {{default: {{replicas: 2}}}}
pipelines:
  quadrants:
    detect: {{model: tiny-detector, score_threshold: 0.2}}
    then: [{{model: tiny, top_k: 4}}]
  cells:
    detect: {{model: tiny-yolo, max_boxes: 16, padding: 0.25, square: true}}
    then:
      - {{model: tiny, for: [red, green], top_k: 4}}
      - {{model: tiny-segmenter, name: outline, for: [blue]}}
  deep:
    detect: {{model: tiny-detector, score_threshold: 0.2}}
    then:
      - model: tiny-detector
        name: inner
        score_threshold: 0.2
        then: [{{model: tiny, top_k: 4}}]
"""


def add_models(store: Path) -> None:
    add_tiny_classifier(store)
    add_tiny_detector(store)
    add_tiny_yolo(store)
    add_tiny_segmenter(store)


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("pipelines")
    (root / "jwks.json").write_text(issuer.key_set)
    service = SERVICE.format(issuer=ISSUER, audience=AUDIENCE, root=root)
    with running_stack(root, models=add_models, service=service) as stack:
        yield stack


@pytest.fixture
async def client(served: Stack) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(served.target, api_key=served.api_key) as opened:
        yield opened


def encoded(picture: Image.Image, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, quality=95)
    return buffer.getvalue()


def blotches(seed: int, width: int = 211, height: int = 163) -> Image.Image:
    """Smooth colours, bright enough for every quadrant to be found, and no probability near 0 or 1."""
    small = np.random.default_rng(seed).integers(90, 170, (5, 6, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def cells(*colours: str, width: int = 256) -> Image.Image:
    """4 x 4 cells; those named, from the upper left, are of that colour, the others are grey."""
    palette = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
    pixels = np.full((width, width, 3), 128, np.uint8)
    side = width // 4
    for place, colour in enumerate(colours):
        row, column = divmod(place, 4)
        pixels[row * side : (row + 1) * side, column * side : (column + 1) * side] = palette[colour]
    return Image.fromarray(pixels)


def cut(picture: Image.Image, box: Box) -> Image.Image:
    """As anybody would cut it by hand."""
    width, height = picture.size
    left, top = round(box.x * width), round(box.y * height)
    return picture.crop((left, top, round((box.x + box.width) * width), round((box.y + box.height) * height)))


@pytest.mark.parametrize("seed", range(3))
async def test_values_are_those_of_crops_cut_by_hand(client: AsyncClient, seed: int) -> None:
    content = encoded(blotches(seed))
    found = await client.analyze(content, "quadrants")
    alone = await client.detect(content, "tiny-detector", score_threshold=0.2)
    assert [finding.box for finding in found.findings] == list(alone.boxes)
    assert len(found.findings) == 4
    decoded = Image.open(io.BytesIO(content))
    for finding in found.findings:
        by_hand = await client.classify(encoded(cut(decoded, finding.box), "PNG"), "tiny", top_k=4)
        (result,) = finding.results
        assert (result.error, result.model_version) == (None, 1)
        told = {each.label: each.probability for each in result.classes}
        assert told == pytest.approx({each.label: each.probability for each in by_hand.classes}, abs=0.02)
    assert [(step.step, step.calls, step.failed) for step in found.steps] == [("tiny-detector", 1, 0), ("tiny", 4, 0)]


async def test_no_box_costs_the_detector_alone(client: AsyncClient) -> None:
    found = await client.analyze(encoded(Image.new("RGB", (64, 64))), "quadrants")
    assert found.findings == ()
    assert [step.calls for step in found.steps] == [1, 0]


async def test_many_boxes_go_where_their_class_leads(client: AsyncClient) -> None:
    colours = ["red", "green", "blue", "red"] * 4
    found = await client.analyze(encoded(cells(*colours)), "cells")
    assert len(found.findings) == 16
    for finding in found.findings:
        (result,) = finding.results
        assert result.error is None
        if finding.box.label == "blue":
            assert finding.of("outline") is result
            assert result.mask is not None
            assert result.mask.regions[0].index == 2
        else:
            assert result.classes[0].label == finding.box.label
    assert {step.step: step.calls for step in found.steps} == {"tiny-yolo": 1, "tiny": 12, "outline": 4}


async def test_three_steps_deep_boxes_are_of_the_whole_picture(client: AsyncClient) -> None:
    content = encoded(blotches(7))
    found = await client.analyze(content, "deep")
    decoded = Image.open(io.BytesIO(content))
    corners = {(finding.box.x, finding.box.y) for finding in found.findings}
    assert corners == {(x, y) for x in (0.0, 0.5) for y in (0.0, 0.5)}
    for finding in found.findings:
        for inner in finding.of("inner").findings:
            assert inner.box.width == pytest.approx(0.25, abs=0.01)
            assert finding.box.x - 0.01 <= inner.box.x <= finding.box.x + 0.26
            by_hand = await client.classify(encoded(cut(decoded, inner.box), "PNG"), "tiny", top_k=4)
            told = {each.label: each.probability for each in inner.of("tiny").classes}
            assert told == pytest.approx({each.label: each.probability for each in by_hand.classes}, abs=0.03)


async def test_a_stream_of_pictures(client: AsyncClient) -> None:
    uuid = await client.upload(encoded(blotches(1)))
    answers = await asyncio.gather(*(client.analyze(uuid, "quadrants") for _ in range(40)))
    assert client.sent["by_stream"] > 0
    assert {tuple(finding.box for finding in each.findings) for each in answers} == {
        tuple(finding.box for finding in answers[0].findings)
    }
    assert all(result.error is None for each in answers for finding in each.findings for result in finding.results)


async def test_thousands_of_pictures_keep_their_order_and_one_that_fails_fails_alone(client: AsyncClient) -> None:
    uuids = [await client.upload(encoded(blotches(seed))) for seed in (1, 2)]
    asked = [uuids[0], "4b5ef40f-1f6b-4b4f-9d52-1b8f6b7ab4a8", uuids[1], b"no picture"] * 5
    outcomes = [outcome async for outcome in client.map_analyze(asked, "quadrants", ordered=True, concurrency=8)]
    assert [outcome.image for outcome in outcomes] == asked
    assert [type(outcome.error) for outcome in outcomes] == [type(None), NotFound, type(None), InvalidRequest] * 5
    alone = {uuid: (await client.analyze(uuid, "quadrants")).findings for uuid in uuids}
    assert all(outcome.unwrap().findings == alone[outcome.image] for outcome in outcomes[::2])


async def test_the_first_steps_failure_is_the_answer(client: AsyncClient) -> None:
    with pytest.raises(NotFound, match="no image"):
        await client.analyze("4b5ef40f-1f6b-4b4f-9d52-1b8f6b7ab4a8", "quadrants")
    with pytest.raises(InvalidRequest):
        await client.analyze(b"no picture", "quadrants")


async def test_a_model_is_no_pipeline_and_a_pipeline_no_model(client: AsyncClient) -> None:
    uuid = await client.upload(encoded(blotches(1)))
    with pytest.raises(InvalidRequest, match="call Classify"):
        await client.analyze(uuid, "tiny")
    with pytest.raises(InvalidRequest, match="'quadrants' is a pipeline: call Analyze"):
        await client.detect(uuid, "quadrants")


async def test_a_deadline_that_can_not_be_met(client: AsyncClient) -> None:
    uuid = await client.upload(encoded(blotches(1)))
    with pytest.raises(DeadlineExceeded):
        await client.analyze(uuid, "quadrants", timeout_seconds=0.001)


async def test_a_key_needs_leave_for_the_pipeline_alone(served: Stack, client: AsyncClient) -> None:
    uuid = await client.upload(encoded(blotches(1)))
    with pytest.raises(Unauthenticated):
        async with AsyncClient(served.target, api_key="x" * 24) as stranger:
            await stranger.analyze(uuid, "quadrants")
    keys = Home(served.home.root).keys
    key = api_keys.create(keys, "local", models=["quadrants"], requests_per_second=50, prefix=local_prefix(keys))
    async with AsyncClient(served.target, api_key=key.key, timeout_seconds=20) as limited:
        await until_known(limited)
        # Nine calls for each picture; so a rate that counted those would refuse most.
        answers = await asyncio.gather(*(limited.analyze(uuid, "quadrants") for _ in range(10)))
        assert all(result.error is None for each in answers for one in each.findings for result in one.results)
        for other in ("tiny-detector", "deep"):
            with pytest.raises(PermissionDenied):
                await (limited.analyze if other == "deep" else limited.detect)(uuid, other)


def local_prefix(keys: Path) -> str:
    return next(key.prefix for key in api_keys.load_keys(keys) if key.owner == "local")


async def until_known(client: AsyncClient) -> None:
    """A new key counts within a second."""
    async with asyncio.timeout(20):
        while True:
            try:
                await client.upload(encoded(blotches(1)))
            except Unauthenticated:
                await asyncio.sleep(0.05)
            else:
                return


def post(stack: Stack, path: str, body: object, **headers: str) -> Any:
    told = {"content-type": "application/json"} | headers
    request = urllib.request.Request(f"http://{stack.target}{path}", json.dumps(body).encode(), told, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def get(stack: Stack, path: str) -> Any:
    request = urllib.request.Request(f"http://{stack.target}{path}", headers={"x-api-key": stack.api_key})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


async def test_json(served: Stack, client: AsyncClient) -> None:
    uuid = await client.upload(encoded(blotches(1)))
    key = {"x-api-key": served.api_key}
    told = await asyncio.to_thread(post, served, "/v1/models/quadrants:analyze", {"image_uuid": uuid}, **key)
    assert [len(finding["results"][0]["classes"]) for finding in told["findings"]] == [4, 4, 4, 4]
    with pytest.raises(urllib.error.HTTPError) as caught:
        await asyncio.to_thread(post, served, "/v1/models/quadrants:analyze", {"image_uuid": uuid, "top_k": 3}, **key)
    assert "whose steps have their own settings" in json.loads(caught.value.read())["message"]


async def test_a_picture_brought_along(served: Stack) -> None:
    def bring() -> Any:
        headers = {"x-api-key": served.api_key, "content-type": "image/jpeg"}
        url = f"http://{served.target}/v1/models/quadrants:analyze"
        request = urllib.request.Request(url, encoded(blotches(1)), headers, method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    assert len((await asyncio.to_thread(bring))["findings"]) == 4


async def test_a_token_alone(served: Stack, issuer: Issuer) -> None:
    bearer = dict([issuer.bearer(models=["quadrants"])])
    (upload,) = (await asyncio.to_thread(post, served, "/v1/uploads", {}, **bearer))["uploads"]
    put = urllib.request.Request(upload["put_url"], encoded(blotches(1)), method="PUT")
    await asyncio.to_thread(lambda: urllib.request.urlopen(put, timeout=60).close())
    asked = {"image_uuid": upload["image_uuid"]}
    told = await asyncio.to_thread(post, served, "/v1/models/quadrants:analyze", asked, **bearer)
    assert [finding["results"][0]["code"] for finding in told["findings"]] == [0, 0, 0, 0]


def test_the_command_line(served: Stack, tmp_path: Path) -> None:
    picture, drawn = tmp_path / "street.jpg", tmp_path / "drawn"
    picture.write_bytes(encoded(cells("red", "blue")))
    shown = served.shoal("analyze", picture, "--pipeline", "cells", "--draw", drawn)
    assert "tiny: red 0." in shown.stdout
    assert "outline: " in shown.stdout
    assert (drawn / "street.boxes.jpg").stat().st_size > 0
    told = json.loads(served.shoal("analyze", picture, "--pipeline", "cells", "--json").stdout)
    assert [finding["label"] for finding in told["findings"]] == ["red", "blue"]
    assert told["findings"][0]["results"][0]["classes"][0]["label"] == "red"
    assert {step["step"]: step["calls"] for step in told["steps"]} == {"tiny-yolo": 1, "tiny": 1, "outline": 1}
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    failed = served.shoal("analyze", broken, "--pipeline", "cells", "--json", check=False)
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["error"]["code"] == "INVALID_ARGUMENT"


def test_a_load_test(served: Stack, tmp_path: Path) -> None:
    for number, colours in enumerate([("red", "blue", "blue"), ("red",)]):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(cells(*colours)))
    bench = ("bench", "--pipeline", "cells", "--images", tmp_path, "--warm-up", "0.5", "--json")
    for way in (("--concurrency", "2"), ("--rate", "10", "--upload", "--priority", "bulk", "--timeout", "20")):
        told = json.loads(served.shoal(*bench, *way, "--duration", "1.5").stdout)
        pictures = told["pipeline"]["whole"]
        assert (told["errors"], told["pipeline"]["lacking"], pictures > 0) == ({}, 0, True)
        assert told["latency_ms"]["p50"] <= told["latency_ms"]["p99"]
        # Three and one, in turn; told with two decimals.
        assert told["pipeline"]["mean_objects"] == pytest.approx(2, abs=1.01 / pictures + 0.005)
        steps = {step["step"]: step for step in told["pipeline"]["steps"]}
        assert (steps["tiny-yolo"]["calls"], steps["tiny"]["calls"]) == (pictures, pictures)
        assert steps["outline"]["calls"] == pytest.approx(pictures, abs=1)  # two and none
        for step in steps.values():
            assert step["failed"] == 0
            assert 0 < step["total_ms"]["p50"] <= step["total_ms"]["p99"] < told["latency_ms"]["max"]
            assert 0 < step["stage_mean_us"]["compute"] < 1000 * step["total_ms"]["p99"]
    assert told["stage_mean_us"]["upload"] > 0
    wrong = served.shoal("bench", "--pipeline", "strete", "--images", tmp_path, check=False)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "--pipeline strete: no such pipeline is served" in wrong.stderr
    model = served.shoal("bench", "--pipeline", "tiny", "--images", tmp_path, "--duration", "0.5", check=False)
    assert model.returncode == 1
    assert "INVALID_ARGUMENT" in model.stdout


def test_it_is_listed_and_told_of(served: Stack) -> None:
    listed = {each["name"]: each for each in get(served, "/v1/models")["models"]}
    assert listed["quadrants"] == {
        "name": "quadrants",
        "state": "served",
        "task": "pipeline",
        "versions": [],
        "labels": 0,
    }
    assert listed["tiny"]["pool"] == "default"
    assert get(served, "/v1/models/quadrants")["task"] == "pipeline"
    parts = {part.name: part.state for part in served.state().parts}
    assert parts["pipeline-quadrants-1"] == parts["pipeline-cells-1"] == "ready"


async def test_a_caller_who_leaves_takes_the_inner_calls_along(served: Stack, client: AsyncClient) -> None:
    uuid = await client.upload(encoded(blotches(1)))
    before = await served.metric("pipeline-quadrants-1", "shoal_pipeline_pictures_total", code="CANCELLED")
    worker = [at_work(served.part(f"worker-default-{number}")) for number in (1, 2)]
    for each in worker:
        each.suspend()  # so that nothing is answered
    try:
        task = asyncio.create_task(client.analyze(uuid, "quadrants", timeout_seconds=30))
        await served.until_metric("pipeline-quadrants-1", "shoal_pipeline_in_flight", 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await served.until_metric("pipeline-quadrants-1", "shoal_pipeline_pictures_total", before + 1, code="CANCELLED")
        await served.until_metric("batcher-shared-1", "shoal_batcher_queue_depth", 0, model="tiny-detector")
    finally:
        for each in worker:
            each.resume()


@pytest.mark.parametrize("name", ["pipeline-quadrants-1", "worker-default-1", "batcher-shared-1"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
async def test_a_part_that_dies_costs_no_picture(
    served: Stack, client: AsyncClient, name: str, number: signal.Signals
) -> None:
    uuid = await client.upload(encoded(blotches(1)))
    stop = asyncio.Event()
    outcomes: list[str] = []

    async def ask() -> None:
        while not stop.is_set():
            try:
                found = await client.analyze(uuid, "quadrants", timeout_seconds=60)
            except ShoalError as error:
                outcomes.append(repr(error))
                continue
            codes = [result.error for finding in found.findings for result in finding.results]
            outcomes.append("whole" if codes == [None] * 4 else repr(codes))
            await asyncio.sleep(0.1)  # a load, not all that two cores can do: the part has to start beside it

    askers = [asyncio.create_task(ask()) for _ in range(6)]
    await answered(outcomes, 20)
    before = served.part(name)
    process = at_work(before) if number is signal.SIGKILL else None
    assert before.pid
    os.kill(process.pid if process else before.pid, number)
    await served.restarted(before)
    await answered(outcomes, len(outcomes) + 20)
    stop.set()
    await asyncio.gather(*askers)
    assert set(outcomes) == {"whole"}


@pytest.mark.parametrize("name", ["pipeline-quadrants-1", "worker-default-1", "batcher-shared-1"])
async def test_under_too_much_load_a_part_that_dies_leaves_each_picture_one_answer(
    served: Stack, client: AsyncClient, name: str
) -> None:
    """More callers than can be answered within their time, who ask again at once: whole, in part, or refused."""
    uuid = await client.upload(encoded(blotches(1)))
    stop = asyncio.Event()
    asked = 0
    outcomes: list[str] = []
    whole: list[str] = []

    async def ask() -> None:
        nonlocal asked
        while not stop.is_set():
            asked += 1
            try:
                found = await client.analyze(uuid, "quadrants", timeout_seconds=0.4)
            except ShoalError as error:
                outcomes.append(to_status(error)[0].name)
                continue
            errors = [result.error for finding in found.findings for result in finding.results if result.error]
            outcomes.extend(to_status(error)[0].name for error in errors[:1])
            if not errors:
                outcomes.append("whole")
                whole.append(uuid)

    askers = [asyncio.create_task(ask()) for _ in range(150)]
    await answered(whole, 50)
    before = served.part(name)
    process = at_work(before)
    os.kill(process.pid, signal.SIGKILL)
    await served.restarted(before)
    await answered(whole, len(whole) + 50)
    stop.set()
    await asyncio.gather(*askers)
    assert len(outcomes) == asked
    assert set(outcomes) - {"whole"} <= {"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}
    assert {"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"} & set(outcomes), "it was no overload"


async def answered(outcomes: list[str], count: int) -> None:
    async with asyncio.timeout(60):
        while len(outcomes) < count:
            await asyncio.sleep(0.02)  # somebody else counts


async def test_a_picture_of_one_pixel_has_parts_of_one(client: AsyncClient) -> None:
    found = await client.analyze(encoded(Image.new("RGB", (1, 1), (200, 200, 200))), "quadrants")
    assert [result.error for each in found.findings for result in each.results] == [None] * 4


def test_a_pipeline_that_can_not_be_right_is_told_with_line_and_key(tmp_path: Path) -> None:
    home = Home(tmp_path)
    add_models(home.models)
    file = tmp_path / "shoal.yaml"
    file.write_text("pipelines:\n  x:\n    detect: {model: tiny-detector}\n    then: [{model: tiny, for: [dog]}]\n")
    done = shoal(tmp_path, "up", "--service", file, "--port", "0", check=False)
    assert done.returncode == 2
    assert f"{file}:4: pipelines.x.then.0.for: 'dog': no label of model 'tiny-detector'" in done.stderr


async def test_grpc_says_what_a_pipeline_has_no_use_for(served: Stack) -> None:
    async with grpc.aio.insecure_channel(served.target) as channel:
        call = channel.unary_unary("/shoal.v1.Inference/Analyze", pb.ImageRequest.SerializeToString)
        request = pb.ImageRequest(api_key=served.api_key, model_name="quadrants", model_version=3)
        with pytest.raises(grpc.aio.AioRpcError, match="model_version: 'quadrants' is a pipeline"):
            await call(request, metadata=(("x-api-key", served.api_key), ("x-model-name", "quadrants")))
