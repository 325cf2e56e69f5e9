"""Boxes and masks on pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from shoal.cli.captions import Rectangle, places
from shoal.cli.output import OutputFolder
from shoal.client import Detection, Segmentation
from shoal.errors import ConfigurationError
from shoal.pictures import mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from shoal.client import Box, Outcome, Result

    Pixels = NDArray[Any]

_RED = (0, 0, 255)  # BGR
_WHITE = (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_SMALLEST_TEXT = 0.4
"""OpenCV's scale: letters of some 11 pixels."""
_OPACITY = 0.5


class Drawer:
    """Saves pictures with what was found on them, as ``<folder>/<name>.boxes.jpg`` or ``.overlay.jpg``."""

    def __init__(self, folder: Path) -> None:
        self._folder = OutputFolder(folder, "--draw")

    def __call__(self, outcome: Outcome[Result]) -> None:
        """Draws one outcome; one that failed has nothing to draw.

        Raises:
            ConfigurationError: the picture can't be read or written.
        """
        found, image = outcome.result, outcome.image
        if not isinstance(image, Path):
            return
        if isinstance(found, Detection):
            self.save(image, ".boxes.jpg", lambda pixels: with_boxes(pixels, found.boxes))
        elif isinstance(found, Segmentation):
            self.save(image, ".overlay.jpg", lambda pixels: _with_mask(pixels, found))

    def save(self, image: Path, suffix: str, draw: Callable[[Pixels], Pixels]) -> None:
        """Saves ``image``, drawn on by ``draw``; raises as a call does."""
        pixels = cv2.imread(str(image), cv2.IMREAD_COLOR)  # upright: OpenCV applies the EXIF orientation
        if pixels is None:
            raise ConfigurationError(f"--draw: OpenCV can't read {image}")
        path = self._folder.path(image, suffix)
        if not cv2.imwrite(str(path), draw(pixels)):
            raise ConfigurationError(f"--draw: can't write {path}")


def with_captions(pixels: Pixels, captions: Sequence[tuple[Box, str]]) -> Pixels:
    """Boxes, and at each on a plate what is said of it, as far as the font has the letters.

    No plate covers another: where those of boxes before leave no room, a box has none.
    """
    with_boxes(pixels, (box for box, _ in captions))
    height, width = pixels.shape[:2]
    scale = max(_SMALLEST_TEXT, max(width, height) / 2000)
    margin = round(6 * scale)
    texts = [cv2.getTextSize(text, _FONT, scale, 1) for _, text in captions]
    sizes = [(wide + 2 * margin, high + below + 2 * margin) for (wide, high), below in texts]
    found = places([_rectangle(box, width, height) for box, _ in captions], sizes, (width, height))
    for (_, text), (_, below), plate in zip(captions, texts, found, strict=True):
        if plate is not None:
            cv2.rectangle(pixels, plate[:2], (plate.right - 1, plate.bottom - 1), _RED, cv2.FILLED)
            foot = plate.left + margin, plate.bottom - margin - below
            cv2.putText(pixels, text, foot, _FONT, scale, _WHITE, 1, cv2.LINE_AA)
    return pixels


def with_boxes(pixels: Pixels, boxes: Iterable[Box]) -> Pixels:
    """Boxes on a picture, which is drawn on and returned."""
    height, width = pixels.shape[:2]
    for box in boxes:
        edges = _rectangle(box, width, height)
        cv2.rectangle(pixels, edges[:2], edges[2:], _RED, max(round(max(width, height) / 500), 1))
    return pixels


def _rectangle(box: Box, width: int, height: int) -> Rectangle:
    left, top = round(box.x * width), round(box.y * height)
    return Rectangle(left, top, round((box.x + box.width) * width), round((box.y + box.height) * height))


def _with_mask(pixels: Pixels, found: Segmentation) -> Pixels:
    """Each pixel half in its class's colour, as in the mask's PNG; what the model did not see stays as it is."""
    height, width = pixels.shape[:2]
    small = np.frombuffer(found.class_map(), f"<u{found.class_bytes}").reshape(found.height, found.width)
    classes: Pixels = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
    palette: Pixels = np.frombuffer(mask.palette(), np.uint8).reshape(-1, 3)[:, ::-1]
    colours = palette[classes & 0xFF]
    blended = cv2.addWeighted(pixels, 1 - _OPACITY, colours, _OPACITY, 0)
    return np.where((classes == found.unseen)[..., np.newaxis], pixels, blended)
