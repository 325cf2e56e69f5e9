"""Regions of pictures through a whole service, held against pictures that Pillow has cut out."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import obstore
import pytest
from PIL import Image

from shoal.client import Client, PictureRegion
from shoal.errors import NotFound
from shoal.pictures.objectstore import load_credentials, open_store
from shoal.pictures.reference import object_key
from shoal.service.spec import ObjectStore as StoreSettings
from support.pictures import encode, quadrants, stored
from support.stack import Stack, running_stack
from support.tiny_models import add_tiny_classifier, add_tiny_detector, add_tiny_segmenter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = (320, 200)
REGION = PictureRegion(0.5, 0.25, 0.4, 0.5)
CUT = (160, 50, 288, 150)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    def add(store: Path) -> None:
        add_tiny_classifier(store, "tiny")
        add_tiny_detector(store)
        add_tiny_segmenter(store)

    with running_stack(tmp_path_factory.mktemp("regions"), models=add) as stack:
        yield stack


@pytest.fixture(scope="module")
def client(place: Stack) -> Iterator[Client]:
    with Client(place.target, api_key=place.api_key) as made:
        yield made


def picture() -> Image.Image:
    """Dark on the left; on the right four bands."""
    made = Image.new("RGB", SIZE, (20, 20, 20))
    made.paste(quadrants(160, 200), (160, 0))
    return made


FORMS = [("JPEG", 1), ("JPEG", 6), ("PNG", 1), ("PNG", 8)]


@pytest.mark.parametrize(("form", "orientation"), FORMS)
def test_all_tasks_see_the_region_and_tell_of_the_whole_picture(client: Client, form: str, orientation: int) -> None:
    whole = encode(stored(picture(), orientation), form, orientation)
    cut = encode(picture().crop(CUT), "PNG")
    uuid = client.upload(whole)

    found, alone = client.classify(uuid, "tiny", region=REGION), client.classify(cut, "tiny")
    assert [each.index for each in found.classes] == [each.index for each in alone.classes]
    np.testing.assert_allclose(
        [each.probability for each in found.classes], [each.probability for each in alone.classes], atol=0.05
    )
    assert found.region is not None
    np.testing.assert_allclose(found.region[:4], (0.5, 0.25, 0.4, 0.5), atol=1e-6)

    boxes = client.detect(uuid, "tiny-detector", region=REGION, score_threshold=0.01).boxes
    alone_boxes = client.detect(cut, "tiny-detector", score_threshold=0.01).boxes
    assert len(boxes) == len(alone_boxes) == 4
    for box, other in zip(boxes, alone_boxes, strict=True):
        inside = [0.5 + 0.4 * other.x, 0.25 + 0.5 * other.y, 0.4 * other.width, 0.5 * other.height]
        np.testing.assert_allclose([box.x, box.y, box.width, box.height], inside, atol=1e-5)
        assert box.score == pytest.approx(other.score, abs=0.02)

    mask = client.segment(uuid, "tiny-segmenter", region=REGION, mask_size="picture")
    shown = np.frombuffer(mask.class_map(), np.uint8).reshape(mask.height, mask.width)
    assert shown.shape == (200, 320)
    inner = client.segment(cut, "tiny-segmenter", mask_size="picture")
    left, upper, right, lower = CUT
    seen = np.zeros_like(shown, bool)
    seen[upper:lower, left:right] = True
    assert (shown[~seen] == mask.unseen).all()
    expected = np.frombuffer(inner.class_map(), np.uint8).reshape(inner.height, -1)
    assert (shown[upper:lower, left:right] == expected).mean() > 0.97


def test_several_regions_are_answered_one_by_one(place: Stack, client: Client) -> None:
    uuid = client.upload(encode(picture()))
    asked = [(0.5 + 0.25 * x, 0.5 * y, 0.25, 0.5) for y in (0, 1) for x in (0, 1)] * 5
    found = client.classify(uuid, "tiny", regions=asked)
    together = [part.unwrap().classes[0].label for part in found.parts]
    assert together == [client.classify(uuid, "tiny", region=each).classes[0].label for each in asked[:4]] * 5
    assert together[:3] == ["red", "green", "blue"]
    masks = client.segment(uuid, "tiny-segmenter", regions=asked[:3])
    assert [part.unwrap().regions[0].label for part in masks.parts] == ["red", "green", "blue"]
    told = ask(place, {"image_uuid": uuid, "regions": [{"x": 0.5, "y": 0, "width": 0.25, "height": 0.5}]})
    assert told["region_replies"][0]["reply"]["classes"][0]["label"] == "red"


REFUSED = {
    "nan": ({"x": "NaN", "y": 0, "width": 1, "height": 1}, "region.x nan is not in [0, 1)"),
    "nothing": ({"x": 0, "y": 0, "height": 1}, "region.width 0 is not above 0"),
    "misspelt": ({"x": 0, "y": 0, "widht": 1, "height": 1}, "widht"),
    "text": ({"x": "left"}, "region.x"),
}


def ask(place: Stack, fields: dict[str, Any], verb: str = "tiny:classify") -> Any:
    body = json.dumps(fields).encode()
    headers = {"content-type": "application/json", "x-api-key": place.api_key}
    request = urllib.request.Request(f"http://{place.target}/v1/models/{verb}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return json.loads(error.read())


def test_json_has_regions_too(place: Stack, client: Client) -> None:
    uuid = client.upload(encode(picture(), "PNG"))
    part = {"x": 0.5, "y": 0, "width": 0.25, "height": 0.5}
    assert ask(place, {"image_uuid": uuid, "region": part})["classes"][0]["label"] == "red"


@pytest.mark.parametrize("case", REFUSED)
def test_json_that_is_no_region_is_refused_by_name(place: Stack, case: str) -> None:
    region, text = REFUSED[case]
    told = ask(place, {"image_uuid": "6ba7b810-9dad-41d1-80b4-00c04fd430c8", "region": region})
    assert told["code"] == 3
    assert text in told["message"]


def test_a_picture_that_comes_with_its_call_may_have_a_region_in_the_query(place: Stack) -> None:
    where = "tiny:classify?region.x=0.75&region.y=0.5&region.width=0.25&region.height=0.5"
    headers = {"content-type": "image/png", "x-api-key": place.api_key}
    request = urllib.request.Request(f"http://{place.target}/v1/models/{where}", encode(picture(), "PNG"), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        told = json.loads(answer.read())
    assert {name: told["region"][name] for name in ("x", "y", "width")} == {"x": 0.75, "y": 0.5, "width": 0.25}


def test_a_picture_that_was_asked_for_lately_needs_no_store(place: Stack, client: Client) -> None:
    uuid = client.upload(encode(picture(), "PNG"))
    seen = client.classify(uuid, "tiny", region=REGION)
    store = open_store(StoreSettings(), load_credentials(place.home.store_credentials), place.state().store_url)
    obstore.delete(store, object_key("local/", uuid))
    assert client.classify(uuid, "tiny", region=REGION, max_age_seconds=3600).classes == seen.classes
    with pytest.raises(NotFound):
        client.classify(uuid, "tiny", region=REGION)


def test_the_command_line_takes_a_region(place: Stack, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encode(picture(), "PNG"))
    said = place.shoal("classify", file, "--model", "tiny", "--region", "0.5,0.5,0.25,0.5", "--json").stdout
    assert json.loads(said)["classes"][0]["label"] == "blue"
    wrong = place.shoal("classify", file, "--model", "tiny", "--region", "0.5,0.5,0.75,0.5", check=False)
    assert wrong.returncode == 2
    assert "--region ends beyond the picture" in wrong.stderr
