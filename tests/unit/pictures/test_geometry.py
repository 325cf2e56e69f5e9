from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from shoal.modelconfig.model import Resize
from shoal.pictures.geometry import place
from shoal.pictures.header import PictureSize
from shoal.pictures.region import PictureRegion
from support.pictures import config

if TYPE_CHECKING:
    from shoal.modelconfig.model import ModelConfig

PICTURE = PictureSize(400, 300)
REGION = PictureRegion(0.25, 0.2, 0.5, 0.4)
CUT = PictureSize(200, 120)
CORNER = (100, 60)

RULES = pytest.mark.parametrize(
    "settings",
    [
        config(32, 32),
        config(32, 48, resize=Resize.LETTERBOX),
        config(32, 32, resize=Resize.CROP, resize_shorter_side=40),
    ],
    ids=lambda settings: settings.resize.value,
)


@RULES
def test_boxes_of_a_region_are_those_of_the_cut_told_in_the_whole_picture(settings: ModelConfig) -> None:
    inside, alone = place(settings, PICTURE, REGION), place(settings, CUT)
    boxes = np.random.default_rng(1).uniform(0, 0.5, (20, 4))
    expected = alone.to_picture(boxes) * [0.5, 0.4, 0.5, 0.4] + [0.25, 0.2, 0, 0]
    found = inside.to_picture(boxes)
    within = (expected[:, 0] > 0.25) & (expected[:, 1] > 0.2)  # beside the region a box isn't clipped
    assert within.sum() > 5
    np.testing.assert_allclose(found[within, :2], expected[within, :2], atol=1e-12)


@RULES
@pytest.mark.parametrize("axis", [0, 1])
def test_the_mask_of_a_region_is_that_of_the_cut_and_nothing_beside_it(settings: ModelConfig, axis: int) -> None:
    inside, alone = place(settings, PICTURE, REGION), place(settings, CUT)
    begin, length = CORNER[axis], CUT[axis]
    found = inside.cells(axis, 16, PICTURE[axis])
    np.testing.assert_array_equal(found[begin : begin + length], alone.cells(axis, 16, length))
    assert (found[:begin] == -1).all()
    assert (found[begin + length :] == -1).all()


@RULES
def test_the_whole_picture_is_the_picture(settings: ModelConfig) -> None:
    assert place(settings, PICTURE, PictureRegion(0, 0, 1, 1)) == place(settings, PICTURE)
