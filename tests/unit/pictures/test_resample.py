"""Every result is held against Pillow's own ``resize``, pixel by pixel."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shoal.modelconfig.model import ResizeFilter
from shoal.pictures import resample as module
from shoal.pictures.resample import Box, Job, resample, rows_first

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

PILLOW = {
    ResizeFilter.BILINEAR: Image.Resampling.BILINEAR,
    ResizeFilter.BICUBIC: Image.Resampling.BICUBIC,
}


def noise(generator: random.Random, width: int, height: int) -> Pixels:
    """Full contrast, in blocks of a few pixels: the worst that a filter can meet."""
    block = generator.choice([1, 1, 2, 5, 9])
    numbers = np.random.default_rng(generator.randrange(10**6))
    small = numbers.integers(0, 2, (height // block + 1, width // block + 1, 4)) * 255
    return small.repeat(block, 0).repeat(block, 1)[:height, :width].astype(np.uint8)


def pillow(pixels: Pixels, size: tuple[int, int], which: ResizeFilter, box: Box | None = None) -> Pixels:
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels[..., :3])).resize(size, PILLOW[which], box))


def difference(got: Pixels, wanted: Pixels) -> int:
    return int(np.abs(got[..., :3].astype(int) - wanted).max())


@pytest.fixture(params=[True, False], ids=["vectors", "pillow"])
def resizer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With the vector instructions of ``cykooz-resizer`` and without."""
    if request.param and not module.HAS_VECTORS:
        pytest.skip("this machine has no cykooz-resizer")
    monkeypatch.setattr(module, "HAS_VECTORS", request.param)
    return bool(request.param)


@pytest.mark.parametrize("which", list(ResizeFilter))
@pytest.mark.parametrize("seed", range(4))
def test_any_size_to_any_size(resizer: bool, which: ResizeFilter, seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(60):
        before, after = ((generator.randint(1, 150), generator.randint(1, 150)) for _ in range(2))
        pixels = noise(generator, *before)
        job = Job(Box(0, 0, *before), after, which, rows_first(before, after))
        assert difference(resample(pixels, job), pillow(pixels, after, which)) <= 1, (before, after)


@pytest.mark.parametrize("which", list(ResizeFilter))
@pytest.mark.parametrize(("before", "after"), [
    ((600, 200), (224, 224)), ((200, 600), (224, 224)), ((4000, 30), (1, 1)), ((1, 1), (224, 224)),
    ((5000, 4), (64, 64)), ((4, 5000), (64, 64)), ((1, 500), (32, 32)), ((2, 2), (224, 3)), ((1500, 900), (2, 3)),
    ((224, 300), (224, 224)), ((300, 224), (224, 224)), ((224, 224), (224, 224)), ((223, 225), (224, 224)),
])  # fmt: skip
def test_one_side_grows_and_extremes(
    resizer: bool, which: ResizeFilter, before: tuple[int, int], after: tuple[int, int]
) -> None:
    pixels = noise(random.Random(0), *before)
    job = Job(Box(0, 0, *before), after, which, rows_first(before, after))
    assert difference(resample(pixels, job), pillow(pixels, after, which)) <= 1


@pytest.mark.parametrize("which", list(ResizeFilter))
@pytest.mark.parametrize("seed", range(3))
def test_a_box_shows_what_lies_beyond_its_edges(resizer: bool, which: ResizeFilter, seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(60):
        width, height = generator.randint(2, 150), generator.randint(2, 150)
        left, upper = generator.uniform(0, width - 1), generator.uniform(0, height - 1)
        box = Box(left, upper, generator.uniform(left + 0.5, width), generator.uniform(upper + 0.5, height))
        size = generator.randint(1, 90), generator.randint(1, 90)
        pixels = noise(generator, width, height)
        job = Job(box, size, which, rows_first((width, height), size))
        assert difference(resample(pixels, job), pillow(pixels, size, which, box)) <= 1, (width, height, box, size)


@pytest.mark.parametrize("first", [True, False])
def test_takes_three_channels_and_images_as_well(resizer: bool, first: bool) -> None:
    pixels = noise(random.Random(0), 90, 70)
    three = np.ascontiguousarray(pixels[..., :3])
    job = Job(Box(10.5, 3, 80, 60.25), (40, 50), ResizeFilter.BILINEAR, first)
    wanted = resample(pixels, job)[..., :3]
    assert (resample(three, job) == wanted).all()
    assert (resample(Image.fromarray(three), job) == wanted).all()


def test_fast_is_two_levels_off_at_most() -> None:
    generator = random.Random(0)
    for _ in range(60):
        before, after = ((generator.randint(1, 150), generator.randint(1, 150)) for _ in range(2))
        pixels = noise(generator, *before)
        job = Job(Box(0, 0, *before), after, ResizeFilter.BICUBIC, rows_first(before, after), fast=True)
        assert difference(resample(pixels, job), pillow(pixels, after, ResizeFilter.BICUBIC)) <= 2


def test_pillow_is_asked_in_the_order_that_it_would_take_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HAS_VECTORS", False)
    generator = random.Random(0)
    for _ in range(100):
        before, after = ((generator.randint(20, 90), generator.randint(20, 90)) for _ in range(2))
        pixels = noise(generator, *before)
        job = Job(Box(0, 0, *before), after, ResizeFilter.BICUBIC, rows_first(before, after))
        assert difference(resample(pixels, job), pillow(pixels, after, ResizeFilter.BICUBIC)) == 0, (before, after)
