"""Where captions stand on a picture, so that none covers another."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Rectangle(NamedTuple):
    """In whole pixels; the right and lower edges are not part of it."""

    left: int
    top: int
    right: int
    bottom: int

    def meets(self, other: Rectangle) -> bool:
        """Whether a pixel belongs to both."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def places(
    boxes: Sequence[Rectangle], sizes: Sequence[tuple[int, int]], frame: tuple[int, int]
) -> list[Rectangle | None]:
    """A place for each box's caption, within the frame; None where those before left no room.

    Of the places at its box, it is one that covers the fewest other boxes.

    Args:
        boxes: those that matter most first.
        sizes: width and height of each box's caption.
        frame: width and height of the picture.
    """
    taken: list[Rectangle] = []
    found: list[Rectangle | None] = []
    for box, size in zip(boxes, sizes, strict=True):
        free = (place for place in _near(box, size, frame) if not any(map(place.meets, taken)))
        place = min(free, key=lambda place: sum(map(place.meets, boxes)) - place.meets(box), default=None)
        if place is not None:
            taken.append(place)
        found.append(place)
    return found


def _near(box: Rectangle, size: tuple[int, int], frame: tuple[int, int]) -> Iterator[Rectangle]:
    """Places at a box, the best first: above it, within at its head, below it, within at its foot."""
    width, height = size
    for top in (box.top - height, box.top, box.bottom, box.bottom - height):
        for left in (box.left, box.right - width):
            x = max(0, min(left, frame[0] - width))
            y = max(0, min(top, frame[1] - height))
            yield Rectangle(x, y, x + width, y + height)
