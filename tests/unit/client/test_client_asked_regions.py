from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from shoal.client import AsyncClient, Box, PictureRegion
from shoal.client.asked_regions import check_seen
from shoal.errors import DeadlineExceeded, InvalidRequest, Unavailable
from shoal.v1 import inference_pb2 as pb
from support.fake_service import KNOWN, FakeService

if TYPE_CHECKING:
    from shoal.client import AsRegion

BOX = Box(0.25, 0.5, 0.125, 0.25, 0, "text", 0.5)


@pytest.mark.parametrize(
    ("region", "sent"),
    [
        (PictureRegion(0.25, 0.5, 0.125, 0.25, padding=0.5, square=True), (0.25, 0.5, 0.125, 0.25, 0.5, True)),
        (BOX, (0.25, 0.5, 0.125, 0.25, 0, False)),
        ((0.25, 0.5, 0.125, 0.25), (0.25, 0.5, 0.125, 0.25, 0, False)),
    ],
)
@pytest.mark.parametrize("method", ["classify", "detect", "segment"])
async def test_a_region_travels_and_the_answer_says_what_was_seen(
    client: AsyncClient, service: FakeService, method: str, region: AsRegion, sent: tuple[float, ...]
) -> None:
    found = await getattr(client, method)(KNOWN, "model", region=region)
    told = service.requests[0].region
    assert (told.x, told.y, told.width, told.height, told.padding, told.square) == sent
    assert found.region == sent
    assert found.parts == ()


async def test_the_whole_picture_is_no_region(client: AsyncClient, service: FakeService) -> None:
    assert (await client.classify(KNOWN, "model")).region is None
    assert not service.requests[0].HasField("region")


async def test_each_of_several_regions_has_its_own_outcome(client: AsyncClient, service: FakeService) -> None:
    found = await client.classify(KNOWN, "model", regions=[BOX, (0, 0, 1, 1)])
    assert len(service.requests[0].regions) == 2
    late, fine = found.parts
    assert (late.region.x, late.result, fine.region.width, fine.error) == (0.25, None, 1, None)
    assert fine.unwrap().classes[0].label == "cock"
    with pytest.raises(DeadlineExceeded, match="too late"):
        late.unwrap()


@pytest.mark.parametrize("asked", [{"region": BOX}, {"regions": [BOX]}])
async def test_an_older_worker_that_answers_for_the_whole_picture_is_noticed(
    client: AsyncClient, service: FakeService, asked: dict[str, Any]
) -> None:
    service.knows_regions = False
    call = asyncio.ensure_future(client.classify(KNOWN, "model", **asked))
    while not service.calls["Classify"]:
        await asyncio.sleep(0)
    service.knows_regions = True  # a newer one may answer the next time
    await call
    assert service.calls["Classify"] > 1


@pytest.mark.parametrize("request_", [pb.ImageRequest(region={"width": 1}), pb.ImageRequest(regions=[{"width": 1}])])
def test_an_answer_for_the_whole_picture_says_what_to_do(request_: pb.ImageRequest) -> None:
    with pytest.raises(Unavailable, match=r"older than regions answered for the whole picture; upgrade the workers"):
        check_seen(request_, pb.ClassifyReply())


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"region": (0, 0, 2, 1)}, r"region ends beyond the picture: x 0 and width 2"),
        ({"region": (0.5, 0.5)}, r"region \(0\.5, 0\.5\): expected a PictureRegion, a Box, or x, y, width and height"),
        ({"region": ("a", 0, 1, 1)}, r"region \('a', 0, 1, 1\): expected"),
        ({"region": 7}, r"region 7: expected"),
        ({"regions": [BOX, (0, 0, 0, 1)]}, r"regions\[1\]\.width 0 is not above 0"),
        ({"regions": []}, "regions: there are none"),
        ({"region": BOX, "regions": [BOX]}, "region and regions: a call has one of them"),
    ],
)
async def test_what_is_no_region_is_refused_before_anything_is_sent(
    client: AsyncClient, service: FakeService, asked: dict[str, Any], text: str
) -> None:
    with pytest.raises(InvalidRequest, match=text):
        await client.detect(KNOWN, "model", **asked)
    assert not service.requests
