"""Where a picture lands in a model's input, and where a point of the input lies in the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.modelstore.config import Resize
from shoal.worker.header import ImageSize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shoal.modelstore.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Placement:
    """The centred ``window`` of the upright ``picture`` fills ``content`` at the upper left of the ``frame``."""

    picture: ImageSize
    window: tuple[float, float]
    """Width and height, in the upright picture's pixels."""
    content: ImageSize
    frame: ImageSize
    """The model's input."""

    def to_picture(self, boxes: NDArray[np.floating]) -> NDArray[np.floating]:
        """Maps boxes from the frame to the upright picture and clips them there.

        Args:
            boxes: ``(n, 4)`` x, y, width, height, normalised to [0, 1] in the frame.

        Returns:
            ``(n, 4)`` of the same kind, normalised to [0, 1] in the upright picture; all in [0, 1].
        """
        corners = boxes.copy()
        corners[:, 2:] += corners[:, :2]
        for axis in (0, 1):
            scale = self.frame[axis] / self.content[axis] * self.window[axis] / self.picture[axis]
            margin = (1 - self.window[axis] / self.picture[axis]) / 2
            corners[:, axis::2] = corners[:, axis::2] * scale + margin
        corners.clip(0, 1, out=corners)
        corners[:, 2:] -= corners[:, :2]
        return corners


def place(config: ModelConfig, picture: ImageSize) -> Placement:
    """Applies the model's resize rule to an upright picture's size."""
    frame = ImageSize(config.width, config.height)
    if config.resize is Resize.CROP:
        return Placement(picture, _window(config, picture, frame), frame, frame)
    content = _fit(picture, frame) if config.resize is Resize.LETTERBOX else frame
    return Placement(picture, (float(picture.width), float(picture.height)), content, frame)


def _window(config: ModelConfig, picture: ImageSize, frame: ImageSize) -> tuple[float, float]:
    """What the crop shows. A crop can't be larger than the resized picture, so its shorter side is the least."""
    scale = max(config.resize_shorter_side, *frame) / min(picture)
    return frame.width / scale, frame.height / scale


def _fit(picture: ImageSize, frame: ImageSize) -> ImageSize:
    scale = min(frame.width / picture.width, frame.height / picture.height)
    return ImageSize(max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
