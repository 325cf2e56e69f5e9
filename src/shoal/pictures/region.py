"""A part of a picture, as callers name it: shares of the upright picture, which become whole pixels.

What a model sees of a region is what it would see if the region had been cut out, as Pillow's ``crop`` does, and sent
as a picture of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from shoal.errors import InvalidRequest

if TYPE_CHECKING:
    from shoal.pictures.header import PictureSize

SLACK: Final = 0.001
"""So far a region may reach beyond the picture, since somebody rounded its numbers; it is clipped there."""


class Cut(NamedTuple):
    """Whole pixels of an upright picture, as Pillow's ``crop`` takes them; at least one."""

    left: int
    upper: int
    right: int
    lower: int

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """In pixels."""
        return self.lower - self.upper


class PictureRegion(NamedTuple):
    """A part of a picture, in [0, 1] of the upright (EXIF-oriented) one; ``x``, ``y`` is its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    padding: float = 0.0
    """Added on each side, as a share of its own width and height, within the picture. 0.1: a tenth."""
    square: bool = False
    """The shorter side grows about the middle, in pixels, until both are the same; within the picture."""

    def check(self, name: str = "region") -> None:
        """Raises InvalidRequest, with ``name`` and the value, unless it is a part of a picture."""
        sides = (("x", self.x, "width", self.width), ("y", self.y, "height", self.height))
        for corner, begin, side, length in sides:
            if not -SLACK <= begin < 1:
                raise _wrong(f"{name}.{corner}", begin, "not in [0, 1)")
            if not 0 < length < math.inf:
                raise _wrong(f"{name}.{side}", length, "not above 0")
            if not begin + length <= 1 + SLACK:
                raise InvalidRequest(
                    f"{name} ends beyond the picture: {corner} {begin:g} and {side} {length:g} are more than 1 together"
                )
        if not 0 <= self.padding <= 1:
            raise _wrong(f"{name}.padding", self.padding, "not in [0, 1]")

    def cut(self, picture: PictureSize) -> Cut:
        """Its pixels in a picture of this size: padded, clipped, to the nearest whole pixels, then made a square."""
        left, right = _edges(self.x, self.width, self.padding, picture.width)
        upper, lower = _edges(self.y, self.height, self.padding, picture.height)
        if self.square:
            side = max(right - left, lower - upper)
            left, right = _grown(left, right, side, picture.width)
            upper, lower = _grown(upper, lower, side, picture.height)
        return Cut(left, upper, right, lower)


def _wrong(name: str, value: float, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{name} {value:g} is {reason}")


def _edges(begin: float, length: float, padding: float, pixels: int) -> tuple[int, int]:
    """Both ends in ``pixels``, a whole one or more apart."""
    margin = padding * length
    first = min(max(0, round((begin - margin) * pixels)), pixels - 1)
    last = min(round((begin + length + margin) * pixels), pixels)
    return first, max(first + 1, last)


def _grown(first: int, last: int, side: int, pixels: int) -> tuple[int, int]:
    missing = side - (last - first)
    first -= missing // 2
    return max(0, first), min(first + side, pixels)


def cut_of(region: PictureRegion | None, picture: PictureSize) -> Cut:
    """The pixels of a region, or, without one, of the whole picture."""
    return Cut(0, 0, *picture) if region is None else region.cut(picture)
