"""What a pipeline says of a picture, held against the same done by hand: detect, cut with Pillow, classify each cut."""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from PIL import Image, ImageOps

if TYPE_CHECKING:
    from shoal.client import Analysis, AsyncClient, Box, Finding

BY_HAND_TOP = 20
"""Classes: where two are about as probable, either may come first."""


@dataclass(frozen=True)
class ByHand:
    """A pipeline of two steps, told once more."""

    pipeline: str
    detector: str
    score_threshold: float
    max_boxes: int
    classifier: str
    top_k: int
    classes: frozenset[str] = frozenset()
    """Which boxes are looked at; empty: all."""
    padding: float = 0.0
    square: bool = False
    tolerance: float = 0.02
    """Of a probability."""

    async def holds(self, client: AsyncClient, content: bytes) -> Analysis:
        """Fails unless boxes, labels, scores and classes are those that a person with Pillow gets."""
        found = await client.analyze(content, self.pipeline)
        alone = await client.detect(content, self.detector, score_threshold=self.score_threshold)
        assert [finding.box for finding in found.findings] == list(alone.boxes[: self.max_boxes])
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
        await asyncio.gather(*(self._is_told(client, upright, finding) for finding in found.findings))
        return found

    async def _is_told(self, client: AsyncClient, upright: Image.Image, finding: Finding) -> None:
        if self.classes and finding.box.label not in self.classes:
            assert finding.results == ()
            return
        (told,) = finding.results
        assert told.error is None
        assert len(told.classes) == self.top_k
        by_hand = await client.classify(self._cut(upright, finding.box), self.classifier, top_k=BY_HAND_TOP)
        expected = {each.label: each.probability for each in by_hand.classes}
        for each, best in zip(told.classes, by_hand.classes, strict=False):
            assert each.probability == pytest.approx(expected.get(each.label, 0.0), abs=self.tolerance)
            assert each.probability == pytest.approx(best.probability, abs=self.tolerance), "another came first"

    def _cut(self, picture: Image.Image, box: Box) -> bytes:
        """A PNG of what the box shows, in the order that docs/regions.md tells."""
        edges = [
            _edges(box.x, box.width, self.padding, picture.width),
            _edges(box.y, box.height, self.padding, picture.height),
        ]
        if self.square:
            side = max(last - first for first, last in edges)
            edges = [_grown(*pair, side, whole) for pair, whole in zip(edges, picture.size, strict=True)]
        (left, right), (upper, lower) = edges
        buffer = io.BytesIO()
        picture.crop((left, upper, right, lower)).save(buffer, "PNG")
        return buffer.getvalue()


def _edges(begin: float, length: float, padding: float, whole: int) -> tuple[int, int]:
    first = max(0.0, begin - padding * length)
    last = min(1.0, begin + length + padding * length)
    return round(first * whole), round(last * whole)


def _grown(first: int, last: int, side: int, whole: int) -> tuple[int, int]:
    """About the middle, a pixel more behind it if there is no middle; what lies beyond the picture is cut off."""
    begin = first - (side - (last - first)) // 2
    return max(0, begin), min(begin + side, whole)


def turned(content: bytes) -> bytes:
    """The picture as a camera held on its side stores it: lying, and EXIF says how it stands upright."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it a quarter clockwise to show it
    buffer = io.BytesIO()
    picture.transpose(Image.Transpose.ROTATE_90).save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()
