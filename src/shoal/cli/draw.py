"""Boxes and masks on pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from shoal.cli.output import OutputFolder
from shoal.client import Detection, Segmentation
from shoal.errors import ConfigurationError
from shoal.pictures import mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.client import Outcome

    Pixels = NDArray[Any]

_RED = (0, 0, 255)  # BGR
_OPACITY = 0.5


class Drawer:
    """Saves pictures with what was found on them, as ``<folder>/<name>.boxes.jpg`` or ``.overlay.jpg``."""

    def __init__(self, folder: Path) -> None:
        self._folder = OutputFolder(folder, "--draw")

    def __call__(self, outcome: Outcome) -> None:
        """Draws one outcome; one that failed has nothing to draw.

        Raises:
            ConfigurationError: the picture can't be read or written.
        """
        found = outcome.result
        if not isinstance(found, Detection | Segmentation) or not isinstance(outcome.image, Path):
            return
        pixels = cv2.imread(str(outcome.image), cv2.IMREAD_COLOR)  # upright: OpenCV applies the EXIF orientation
        if pixels is None:
            raise ConfigurationError(f"--draw: OpenCV can't read {outcome.image}")
        if isinstance(found, Detection):
            drawn, suffix = _with_boxes(pixels, found), ".boxes.jpg"
        else:
            drawn, suffix = _with_mask(pixels, found), ".overlay.jpg"
        path = self._folder.path(outcome.image, suffix)
        if not cv2.imwrite(str(path), drawn):
            raise ConfigurationError(f"--draw: can't write {path}")


def _with_boxes(pixels: Pixels, found: Detection) -> Pixels:
    height, width = pixels.shape[:2]
    for box in found.boxes:
        corner = round(box.x * width), round(box.y * height)
        opposite = round((box.x + box.width) * width), round((box.y + box.height) * height)
        cv2.rectangle(pixels, corner, opposite, _RED, max(round(max(width, height) / 500), 1))
    return pixels


def _with_mask(pixels: Pixels, found: Segmentation) -> Pixels:
    """Each pixel half in its class's colour, as in the mask's PNG; what the model did not see stays as it is."""
    height, width = pixels.shape[:2]
    small = np.frombuffer(found.class_map(), f"<u{found.class_bytes}").reshape(found.height, found.width)
    classes: Pixels = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
    palette: Pixels = np.frombuffer(mask.palette(), np.uint8).reshape(-1, 3)[:, ::-1]
    colours = palette[classes & 0xFF]
    blended = cv2.addWeighted(pixels, 1 - _OPACITY, colours, _OPACITY, 0)
    return np.where((classes == found.unseen)[..., np.newaxis], pixels, blended)
