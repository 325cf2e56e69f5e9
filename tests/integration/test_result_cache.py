"""``models.<name>.cache_seconds`` through the whole service: who gets an answer again, what says so, and when not."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from shoal.client import AsyncClient, PictureRegion
from shoal.errors import NotFound, Unauthenticated
from support.pictures import encode
from support.stack import Stack, running_stack
from support.tiny_models import add_tiny_classifier, add_tiny_detector, add_tiny_segmenter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from shoal.client.results import Classification

WORKER = "worker-default-1"
SERVICE = """
models:
  tiny: {cache_seconds: 3600}
  shared: {cache_seconds: 3600, cache_shared: true}
  brief: {cache_seconds: 0.001}
  tiny-detector: {cache_seconds: 3600}
  tiny-segmenter: {cache_seconds: 3600}
"""


def add_models(store: Path) -> None:
    for name in ("tiny", "shared", "brief", "uncached"):
        add_tiny_classifier(store, name)
    add_tiny_detector(store)
    add_tiny_segmenter(store)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One worker."""
    with running_stack(tmp_path_factory.mktemp("cache") / "home", models=add_models, service=SERVICE) as running:
        yield running


@pytest.fixture
async def client(own: Stack) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(own.target, api_key=own.api_key, timeout_seconds=60) as made:
        yield made


def picture(*colour: int) -> bytes:
    """Of a test's own."""
    return encode(Image.new("RGB", (64, 48), colour))


async def executed(stack: Stack, model: str) -> float:
    """Pictures that the engine ran."""
    return await stack.metric(WORKER, "shoal_worker_batch_size_sum", model=model)


async def lookups(stack: Stack, model: str) -> tuple[float, float]:
    """Hits and misses."""
    hit, miss = [
        await stack.metric(WORKER, "shoal_worker_result_cache_lookups_total", model=model, outcome=outcome)
        for outcome in ("hit", "miss")
    ]
    return hit, miss


async def test_the_same_content_is_answered_again_under_its_own_uuid(own: Stack, client: AsyncClient) -> None:
    red = picture(250, 1, 1)
    first, second = [await client.classify(red, "tiny") for _ in range(2)]
    assert first.image_uuid != second.image_uuid
    assert first.classes == second.classes
    assert (first.timing.cached, second.timing.cached) == (False, True)
    assert (second.timing.batch_size, second.timing.decode_us, second.timing.compute_us) == (0, 0, 0)
    assert second.timing.fetch_us > 0
    by_reference = await client.classify(first.image_uuid, "tiny")
    assert (by_reference.image_uuid, by_reference.timing.cached) == (first.image_uuid, True)
    assert await executed(own, "tiny") == 1
    assert await lookups(own, "tiny") == (2, 1)
    assert await own.metric(WORKER, "shoal_worker_result_cache_bytes", model="tiny") > 0
    assert await own.metric(WORKER, "shoal_worker_decodes_total", model="tiny") == 1


async def test_explain_tells_it(own: Stack, client: AsyncClient) -> None:
    green = picture(2, 250, 2)
    names = [await client.upload(green) for _ in range(2)]
    for name in names:
        await client.classify(name, "tiny")
    assert "answered from the result cache" in own.shoal("explain", names[1]).stdout
    assert "answered from the result cache" not in own.shoal("explain", names[0]).stdout
    (request,) = json.loads(own.shoal("explain", names[1], "--json").stdout)["requests"]
    assert request["worker"]["result_cache"] == "hit"
    assert sum(request["stage_seconds"].values()) == pytest.approx(request["total_seconds"])


async def test_other_options_and_models_without_a_cache_compute(own: Stack, client: AsyncClient) -> None:
    blue = picture(3, 3, 250)
    before = await executed(own, "tiny")
    answers = [await client.classify(blue, "tiny", top_k=top_k) for top_k in (1, 2, 1)]
    assert [(len(each.classes), each.timing.cached) for each in answers] == [(1, False), (2, False), (1, True)]
    assert await executed(own, "tiny") == before + 2
    for model in ("uncached", "uncached"):
        assert not (await client.classify(blue, model)).timing.cached
    assert await lookups(own, "uncached") == (0, 0)


async def test_an_answer_does_not_outlive_its_seconds(own: Stack, client: AsyncClient) -> None:
    """A way through the service takes longer than this model's."""
    for _ in range(2):
        assert not (await client.classify(picture(4, 4, 250), "brief")).timing.cached
    assert (await lookups(own, "brief"))[0] == 0


async def test_owners_have_their_own_answers_unless_told_otherwise(own: Stack, client: AsyncClient) -> None:
    key = own.shoal("keys", "create", "--owner", "another").stdout.split()[-1]
    mine = picture(250, 5, 5)
    async with AsyncClient(own.target, api_key=key, timeout_seconds=60) as theirs:
        await let_in(theirs)
        for model, known in (("tiny", False), ("shared", True)):
            await client.classify(mine, model)
            assert (await theirs.classify(mine, model)).timing.cached is known


async def let_in(client: AsyncClient) -> None:
    """Waits until the router knows a new key."""
    async with asyncio.timeout(60):
        while True:
            try:
                await client.upload(picture(1, 1, 1))
            except Unauthenticated:
                await asyncio.sleep(0.05)
            else:
                return


async def test_boxes_and_masks_come_again_too(own: Stack, client: AsyncClient) -> None:
    red = picture(250, 6, 6)
    boxes = [await client.detect(red, "tiny-detector") for _ in range(2)]
    assert boxes[0].boxes == boxes[1].boxes
    masks = [await client.segment(red, "tiny-segmenter") for _ in range(2)]
    assert masks[0].data == masks[1].data
    assert masks[0].regions == masks[1].regions
    for first, second in (boxes, masks):
        assert first.image_uuid != second.image_uuid
        assert (first.timing.cached, second.timing.cached) == (False, True)


async def test_of_several_regions_those_that_are_not_known_are_computed(own: Stack, client: AsyncClient) -> None:
    picture_of_two = Image.new("RGB", (80, 40), (250, 9, 9))
    picture_of_two.paste((9, 9, 250), (40, 0, 80, 40))
    uuid = await client.upload(encode(picture_of_two))
    left, right, whole = PictureRegion(0, 0, 0.5, 1), PictureRegion(0.5, 0, 0.5, 1), PictureRegion(0, 0, 1, 1)
    before = await executed(own, "tiny")
    await client.classify(uuid, "tiny", region=right)
    some = await client.classify(uuid, "tiny", regions=[left, right, whole])
    assert [each.unwrap().timing.cached for each in some.parts] == [False, True, False]
    assert [each.unwrap().classes[0].label for each in some.parts[:2]] == ["red", "blue"]
    assert not some.timing.cached
    assert await executed(own, "tiny") == before + 3
    explained = own.shoal("explain", uuid).stdout
    assert "3 regions of the picture; 1 of them answered from the result cache" in explained
    newest, earlier = json.loads(own.shoal("explain", uuid, "--json").stdout)["requests"]
    assert [each["result_cache"] for each in newest["worker"]["regions"]] == ["miss", "hit", "miss"]
    assert earlier["worker"]["region"]["x"] == 0.5
    again = await client.classify(uuid, "tiny", regions=[whole, left, right])
    assert [each.unwrap().timing.cached for each in again.parts] == [True] * 3
    assert again.timing.cached
    assert await executed(own, "tiny") == before + 3


async def test_a_call_without_the_picture_gets_no_answer(own: Stack, client: AsyncClient) -> None:
    """A hit still fetches, so a picture that is gone is gone."""
    with pytest.raises(NotFound):
        await client.classify("6ba7b810-9dad-41d1-80b4-00c04fd430c8", "tiny")


async def test_hits_and_misses_of_one_burst_each_get_their_own(own: Stack, client: AsyncClient) -> None:
    """Known and new pictures share batches; a hit waits for no batch-mate."""
    colours = [(250, 7, 7), (7, 250, 7), (7, 7, 250)]
    for colour in colours:
        await client.classify(picture(*colour), "tiny")
    before = await executed(own, "tiny")
    new = [(60 + 15 * number, 9, 9) for number in range(12)]
    pictures = [picture(*each) for pair in zip(colours * 4, new, strict=True) for each in pair]
    found: list[Classification] = await asyncio.gather(*(client.classify(each, "tiny") for each in pictures))
    assert [each.timing.cached for each in found] == [True, False] * 12
    assert [each.classes[0].label for each in found[::2]] == ["red", "green", "blue"] * 4
    assert await executed(own, "tiny") == before + 12


async def test_the_same_version_with_other_weights_starts_anew(own: Stack, client: AsyncClient) -> None:
    red = picture(250, 8, 8)
    assert not (await client.classify(red, "shared")).timing.cached
    assert (await client.classify(red, "shared")).timing.cached
    path = own.home.models / "shared" / "1" / "model.onnx"
    replaced = path.with_suffix(".new")
    replaced.write_bytes(path.read_bytes())
    replaced.rename(path)
    async with asyncio.timeout(60):
        while (answer := await client.classify(red, "shared")).timing.cached:
            await asyncio.sleep(0.05)
    assert answer.classes[0].label == "red"
    assert (await client.classify(red, "shared")).timing.cached
