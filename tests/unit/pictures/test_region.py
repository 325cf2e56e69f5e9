from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import InvalidRequest
from shoal.pictures.header import PictureSize
from shoal.pictures.region import PictureRegion

SIZE = PictureSize(200, 100)


@pytest.mark.parametrize(
    ("region", "cut"),
    [
        (PictureRegion(0, 0, 1, 1), (0, 0, 200, 100)),
        (PictureRegion(0.25, 0.5, 0.5, 0.25), (50, 50, 150, 75)),
        (PictureRegion(0.2501, 0.504, 0.5, 0.252), (50, 50, 150, 76)),  # to the nearest
        (PictureRegion(0.999, 0.999, 0.001, 0.001), (199, 99, 200, 100)),
        (PictureRegion(0.5, 0.5, 1e-6, 1e-6), (100, 50, 101, 51)),
        (PictureRegion(-0.0009, 0, 1.0015, 1.0009), (0, 0, 200, 100)),
        (PictureRegion(0.25, 0.5, 0.5, 0.2, padding=0.5), (0, 40, 200, 80)),
        (PictureRegion(0, 0, 0.1, 0.1, padding=1), (0, 0, 40, 20)),
        (PictureRegion(0.9, 0.9, 0.1, 0.1, padding=1), (160, 80, 200, 100)),
        (PictureRegion(0.4, 0.4, 0.2, 0.1, square=True), (80, 25, 120, 65)),
        (PictureRegion(0.4, 0.4, 0.05, 0.3, square=True), (70, 40, 100, 70)),
        (PictureRegion(0, 0.4, 0.05, 0.3, square=True), (0, 40, 20, 70)),
        (PictureRegion(0.95, 0.4, 0.05, 0.3, square=True), (180, 40, 200, 70)),
        (PictureRegion(0.4, 0, 0.2, 0.1, square=True), (80, 0, 120, 25)),
        (PictureRegion(0.4, 0.9, 0.2, 0.1, square=True), (80, 75, 120, 100)),
        (PictureRegion(0.4, 0, 0.1, 1, padding=0.5, square=True), (40, 0, 140, 100)),  # no more than there is of it
    ],
)
def test_the_pixels_of_a_region(region: PictureRegion, cut: tuple[int, ...]) -> None:
    region.check()
    assert region.cut(SIZE) == cut


shares = st.floats(0, 1, width=32)


@given(shares, shares, shares, shares, shares, st.booleans(), st.integers(1, 5000), st.integers(1, 5000))
def test_is_never_empty_nor_outside(
    x: float, y: float, width: float, height: float, padding: float, square: bool, columns: int, rows: int
) -> None:
    region = PictureRegion(x, y, width, height, padding, square)
    try:
        region.check()
    except InvalidRequest:
        return
    cut = region.cut(PictureSize(columns, rows))
    assert 0 <= cut.left < cut.right <= columns
    assert 0 <= cut.upper < cut.lower <= rows
    inside = cut.left and cut.upper and cut.right < columns and cut.lower < rows
    assert not (square and inside) or cut.width == cut.height


FINE: dict[str, Any] = {"x": 0.1, "y": 0.2, "width": 0.3, "height": 0.4}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"x": -0.1}, r"r\.x -0\.1 is not in \[0, 1\)"),
        ({"y": 1.0}, r"r\.y 1 is not in \[0, 1\)"),
        ({"x": math.nan}, r"r\.x nan is"),
        ({"y": math.inf}, r"r\.y inf is"),
        ({"width": 0.0}, r"r\.width 0 is not above 0"),
        ({"height": -0.5}, r"r\.height -0\.5 is not above 0"),
        ({"width": math.nan}, r"r\.width nan is"),
        ({"height": math.inf}, r"r\.height inf is"),
        ({"width": 0.95}, r"r ends beyond the picture: x 0\.1 and width 0\.95"),
        ({"height": 0.9}, r"r ends beyond the picture: y 0\.2 and height 0\.9"),
        ({"padding": -0.1}, r"r\.padding -0\.1 is not in \[0, 1\]"),
        ({"padding": 1.5}, r"r\.padding 1\.5 is not in \[0, 1\]"),
        ({"padding": math.nan}, r"r\.padding nan is"),
    ],
)
def test_refusals_name_field_and_value(wrong: dict[str, float], text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        PictureRegion(**FINE | wrong).check("r")
