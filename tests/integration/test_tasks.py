"""Masks and boxes through the whole service, checked pixel by pixel."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from PIL import Image

from shoal.client import AsyncClient, Client, MaskForm, MaskSize, Segmentation
from shoal.errors import InvalidRequest, NotFound
from shoal.modelconfig.model import Resize
from support.pictures import encode, stored
from support.stack import Stack, running_stack
from support.tiny_models import BATCHING, COLOURS, add_tiny_classifier, add_tiny_segmenter, add_tiny_yolo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


RGB = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250], [120, 120, 120]], np.uint8)
"""Of the classes of ``COLOURS``."""
UPRIGHT = np.array([[0, 1, 2, 3], [3, 3, 0, 1]]).repeat(16, axis=0).repeat(16, axis=1)
"""The classes of a picture of 64 x 32."""
FULL = replace(BATCHING, max_batch_size=6, max_queue_delay_microseconds=2_000_000)
"""Goes when it is full."""
UNEVEN = np.random.default_rng(0).integers(0, 4, (500, 500))


def add_models(store: Path) -> None:
    add_tiny_classifier(store)
    add_tiny_segmenter(store, "letterboxed", resize=Resize.LETTERBOX)
    add_tiny_segmenter(store, "stretched", stride=2, channels_last=True)
    add_tiny_segmenter(store, "cropped", resize=Resize.CROP, resize_shorter_side=32)
    add_tiny_segmenter(store, "large", 500, batching=FULL)
    for head in ("yolov5", "yolov8"):
        add_tiny_yolo(store, head, head=head, resize=Resize.LETTERBOX)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("tasks") / "home", models=add_models) as running:
        yield running


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.target, api_key=stack.api_key) as made:
        yield made


def picture(classes: NDArray[np.integer], orientation: int = 1) -> bytes:
    return encode(stored(Image.fromarray(RGB[classes]), orientation), "PNG", orientation)


def array(found: Segmentation) -> NDArray[np.integer]:
    return np.frombuffer(found.class_map(), f"<u{found.class_bytes}").reshape(found.height, found.width)


@pytest.mark.parametrize("form", list(MaskForm))
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_letterboxed_picture(client: Client, form: MaskForm, orientation: int) -> None:
    found = client.segment(picture(UPRIGHT, orientation), "letterboxed", mask_form=form)
    assert (array(found) == UPRIGHT[::2, ::2]).all()
    assert found.labels == COLOURS
    assert [(one.label, one.pixels) for one in found.regions] == [
        ("grey", 192),
        ("red", 128),
        ("green", 128),
        ("blue", 64),
    ]
    assert found.timing.compute_us > 0
    whole = client.segment(picture(UPRIGHT, orientation), "letterboxed", mask_form=form, mask_size="picture")
    assert (array(whole) == UPRIGHT).all()
    shown = cv2.imdecode(np.frombuffer(whole.to_png(), np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (32, 64, 3)
    assert shown[0, 20].tolist() == [0, 0, 128]  # class 1 in the colours of PASCAL VOC, BGR


def test_a_stretched_picture(client: Client) -> None:
    found = client.segment(picture(UPRIGHT), "stretched")
    assert (array(found) == UPRIGHT[::2, ::2]).all()  # 16 x 16 cells, twice as wide as high


def test_a_cropped_picture(client: Client) -> None:
    found = client.segment(picture(UPRIGHT), "cropped", mask_size=MaskSize.PICTURE)
    assert (array(found)[:, 16:48] == UPRIGHT[:, 16:48]).all()
    assert (np.delete(array(found), range(16, 48), axis=1) == found.unseen).all()


async def test_a_full_batch_of_large_masks(stack: Stack) -> None:
    """Noise of 4000 x 3500 takes 14 MB as a class map, and six of them more than a batcher reads in one message."""
    large = Image.fromarray(RGB[UNEVEN]).resize((4000, 3500), Image.Resampling.NEAREST)
    # A PNG of this size would be decoded apart, and be left behind by its mates.
    big = encode(large, "JPEG", quality=100, subsampling=0)
    seen = Image.open(io.BytesIO(big)).resize((500, 500), Image.Resampling.BILINEAR)
    shown, sure = seen_by_the_segmenter(seen)
    assert sure.mean() > 0.9
    async with AsyncClient(stack.target, api_key=stack.api_key) as client:
        uuid = await client.upload(big)
        outcomes = [
            outcome
            async for outcome in client.map(
                [uuid] * 6, "large", task="segmentation", mask_form=MaskForm.CLASS_MAP, mask_size=MaskSize.PICTURE
            )
        ]
    for outcome in outcomes:
        found = outcome.unwrap()
        assert isinstance(found, Segmentation)
        assert found.timing.batch_size == 6
        assert (array(found)[3::7, 4::8] == shown)[sure].all()


def seen_by_the_segmenter(picture: Image.Image) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Its classes, and where a level more or less would change nothing."""
    pixels = np.asarray(picture).astype(float) / 255
    colours = 30 * pixels - 10 * pixels.sum(-1, keepdims=True)
    scores = np.concatenate([colours, np.full((*pixels.shape[:2], 1), 6.0)], -1)
    best = np.sort(scores, -1)
    return scores.argmax(-1), best[..., -1] - best[..., -2] > 0.5


def test_a_mask_that_no_answer_can_hold(client: Client) -> None:
    big = encode(Image.new("RGB", (5000, 4000), (250, 0, 0)))
    uuid = client.upload(big)
    with pytest.raises(InvalidRequest, match=r"5000 x 4000 pixels takes 20,000,000 bytes .* ask for another mask_form"):
        client.segment(uuid, "letterboxed", mask_form=MaskForm.CLASS_MAP, mask_size=MaskSize.PICTURE)
    found = client.segment(uuid, "letterboxed", mask_form=MaskForm.RUNS, mask_size=MaskSize.PICTURE)
    assert [(one.label, one.pixels, one.counts) for one in found.regions] == [("red", 20_000_000, (0, 20_000_000))]


@pytest.mark.parametrize("model", ["yolov5", "yolov8"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_yolo(client: Client, model: str, orientation: int) -> None:
    classes = np.full((32, 64), 3)
    classes[16:32, 32:48] = 1  # the third cell of the second row, once letterboxed
    (box,) = client.detect(picture(classes, orientation), model).boxes
    assert (box.x, box.y, box.width, box.height) == (0.5, 0.5, 0.25, 0.5)
    assert box.label == "green"
    assert box.score > 0.99


def test_broken_and_missing_pictures_fail_alone(client: Client) -> None:
    good = picture(UPRIGHT)
    images = [good, good[: len(good) // 2], "00000000-0000-4000-8000-000000000000", good]
    outcomes = list(client.map(images, "letterboxed", task="segmentation", ordered=True))
    errors = [type(outcome.error) for outcome in outcomes]
    assert errors == [type(None), InvalidRequest, NotFound, type(None)]


def test_another_tasks_method_names_the_right_one(client: Client) -> None:
    for call, wrong, right in (
        (client.segment, "tiny", "Classify"),
        (client.detect, "letterboxed", "Segment"),
        (client.segment, "yolov8", "Detect"),
    ):
        with pytest.raises(InvalidRequest, match=f"call {right}"):
            call(picture(UPRIGHT), wrong)


def test_the_command_line(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "blocks.png").write_bytes(picture(UPRIGHT))
    done = stack.shoal(
        "segment", tmp_path / "blocks.png", "--model", "letterboxed", "--json",
        "--output", tmp_path / "masks", "--draw", tmp_path / "drawn",
    )  # fmt: skip
    record: dict[str, Any] = json.loads(done.stdout)
    assert record["mask"] == {"width": 32, "height": 16}
    assert record["regions"][0] == {"index": 3, "label": "grey", "pixels": 192}
    with Image.open(tmp_path / "masks" / "blocks.mask.png") as saved:
        assert (np.asarray(saved) == UPRIGHT[::2, ::2]).all()
    assert cv2.imread(str(tmp_path / "drawn" / "blocks.overlay.jpg")).shape == (32, 64, 3)
    shown = stack.shoal("segment", tmp_path / "blocks.png", "--model", "letterboxed").stdout
    assert "3 grey" in shown
    assert "0.375" in shown
    bench = stack.shoal(
        "bench", "--task", "segmentation", "--model", "letterboxed", "--images", tmp_path, "--json",
        "--duration", "0.5", "--warm-up", "0", "--concurrency", "4",
    )  # fmt: skip
    assert json.loads(bench.stdout)["answered"] > 0
