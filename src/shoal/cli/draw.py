"""Boxes on pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from shoal.client import Detection
from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from shoal.client import Outcome

_RED = (0, 0, 255)  # BGR


class Drawer:
    """Saves detected pictures as ``<folder>/<name>.boxes.jpg``, so that no picture replaces its source."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._used: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"--draw {folder}: {error.strerror}") from None

    def __call__(self, outcome: Outcome) -> None:
        """Draws one outcome; one that failed has nothing to draw.

        Raises:
            ConfigurationError: the picture can't be read or written.
        """
        if not isinstance(outcome.result, Detection) or not isinstance(outcome.image, Path):
            return
        pixels = cv2.imread(str(outcome.image), cv2.IMREAD_COLOR)  # upright: OpenCV applies the EXIF orientation
        if pixels is None:
            raise ConfigurationError(f"--draw: OpenCV can't read {outcome.image}")
        height, width = pixels.shape[:2]
        for box in outcome.result.boxes:
            corner = round(box.x * width), round(box.y * height)
            opposite = round((box.x + box.width) * width), round((box.y + box.height) * height)
            cv2.rectangle(pixels, corner, opposite, _RED, max(round(max(width, height) / 500), 1))
        path = self._folder / self._name(outcome.image.stem)
        if not cv2.imwrite(str(path), pixels):
            raise ConfigurationError(f"--draw: can't write {path}")

    def _name(self, stem: str) -> str:
        name, number = stem, 1
        while name in self._used:
            number += 1
            name = f"{stem}-{number}"
        self._used.add(name)
        return f"{name}.boxes.jpg"
