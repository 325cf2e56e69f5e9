"""What the pipelines benchmark compares Shoal with: the Python model that detects, crops and classifies in a Triton."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmarks.pipelines.scale import Scale
from benchmarks.pipelines.triton import within_triton
from benchmarks.pipelines.ways import Found, differences

if TYPE_CHECKING:
    from pathlib import Path

WIDTH, HEIGHT = 503, 317
BOXES = [*((0.16 * column, 0.0, 0.2, 0.25) for column in range(6)), (0.0, 0.18, 0.2, 0.25)]
"""X, y, width and height of the first seven that the detector finds, six in a row."""


class OneProcess(Scale):
    """More do the same."""

    @property
    def instances(self) -> tuple[int, ...]:
        return (1,)


def blotches() -> Image.Image:
    """Smooth colours: each edge of a crop shows in its mean colour."""
    small = np.random.default_rng(11).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def by_hand(picture: Image.Image, box: tuple[float, float, float, float]) -> Found:
    """By the classifier's definition: a colour's logit is 20 x its mean less 10 x the other two's, and grey's is 6."""
    x, y, width, height = box
    corners = [round(part) for part in (x * WIDTH, y * HEIGHT, (x + width) * WIDTH, (y + height) * HEIGHT)]
    crop = picture.crop(tuple(corners)).resize((224, 224), Image.Resampling.BILINEAR)
    means = np.asarray(crop, np.float64).mean((0, 1)) / 255
    logits = [*(30 * means - 10 * means.sum()), 6]
    shares = np.exp(logits) / np.exp(logits).sum()
    return Found(*box, ("red", "green", "blue", "grey")[shares.argmax()], shares.max())


async def test_boxes_and_labels_are_those_found_by_hand(tmp_path: Path) -> None:
    picture, file = blotches(), io.BytesIO()
    picture.save(file, "PNG")
    async with within_triton(tmp_path / "triton", [len(BOXES)], [file.getvalue()], OneProcess()) as way:
        answer = await way.ask(0, len(BOXES))
    expected = [by_hand(picture, box) for box in BOXES]
    assert {each.label for each in expected} == {"red", "green", "blue", "grey"}
    boxes, probabilities = differences(answer.found, expected)
    assert boxes < 1e-6
    assert probabilities < 1e-3
