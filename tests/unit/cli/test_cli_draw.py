from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shoal.cli.captions import Rectangle, places
from shoal.cli.draw import with_boxes, with_captions
from shoal.client import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAME = (400, 300)
RED = (0, 0, 255)  # BGR


def box(x: float, y: float, width: float, height: float) -> Box:
    return Box(x=x, y=y, width=width, height=height, score=0.9, index=0, label="cow")


def grey(width: int = 1024, height: int = 768) -> NDArray[Any]:
    return np.full((height, width, 3), 128, np.uint8)


def test_a_caption_stands_above_its_box() -> None:
    assert places([Rectangle(50, 100, 150, 200)], [(80, 20)], FRAME) == [Rectangle(50, 80, 130, 100)]


@pytest.mark.parametrize(
    ("edges", "place"),
    [
        ((0, 0, 400, 300), (0, 0)),
        ((0, 5, 100, 100), (0, 0)),
        ((380, 200, 400, 250), (320, 180)),
        ((390, 290, 400, 300), (320, 270)),
    ],
)
def test_it_stays_within_the_picture(edges: tuple[int, int, int, int], place: tuple[int, int]) -> None:
    (found,) = places([Rectangle(*edges)], [(80, 20)], FRAME)
    assert found is not None
    assert found[:2] == place


def test_none_covers_another_and_the_first_have_their_choice() -> None:
    boxes = [Rectangle(100 + 3 * n, 100 + n, 160 + 3 * n, 160 + n) for n in range(30)]
    found = places(boxes, [(80, 20)] * len(boxes), FRAME)
    stand = [each for each in found if each is not None]
    assert found[0] == Rectangle(100, 80, 180, 100)
    assert len(stand) > 4
    assert None in found  # there is no room for thirty at one spot
    assert not any(one.meets(other) for one, other in combinations(stand, 2))


def test_it_goes_where_it_covers_no_other_box() -> None:
    neighbour, below = Rectangle(50, 60, 150, 98), Rectangle(50, 100, 150, 200)
    _, place = places([neighbour, below], [(80, 20)] * 2, FRAME)
    assert place is not None
    assert not place.meets(neighbour)


def test_a_caption_is_white_on_a_plate_that_holds_all_of_it() -> None:
    bare, drawn = (
        with_boxes(grey(), [box(0.3, 0.5, 0.3, 0.3)]),
        with_captions(grey(), [(box(0.3, 0.5, 0.3, 0.3), "gq")]),
    )
    rows, columns = np.nonzero((bare != drawn).any(axis=2))
    plate = drawn[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    white = (plate > 200).all(axis=2)
    assert white.any()
    # The letters touch no edge of it, neither the descenders nor the last.
    assert not white[[0, -1]].any()
    assert not white[:, [0, -1]].any()
    assert (plate[0] == RED).all()
