"""Where a picture lands in a model's input, and where a point of the input lies in the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shoal.modelconfig.model import Resize, ResizeFilter
from shoal.pictures.header import PictureSize
from shoal.pictures.region import cut_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.modelconfig.model import ModelConfig
    from shoal.pictures.region import Cut, PictureRegion


@dataclass(frozen=True, slots=True)
class Placement:
    """The ``window`` of the upright ``picture`` fills ``content`` at the upper left of the ``frame``."""

    picture: PictureSize
    cut: Cut
    """The part of it that there is for the model: all of it, or a region. No pixel outside of it counts."""
    corner: tuple[float, float]
    """The window's left and upper edge, in the upright picture's pixels."""
    window: tuple[float, float]
    """Width and height, in the upright picture's pixels."""
    content: PictureSize
    frame: PictureSize
    """The model's input."""
    resized: PictureSize
    """What the whole cut becomes at the content's scale; larger than the content where the rest is left out."""
    filter: ResizeFilter = ResizeFilter.BILINEAR

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
            corners[:, axis::2] = corners[:, axis::2] * scale + self.corner[axis] / self.picture[axis]
        corners.clip(0, 1, out=corners)
        corners[:, 2:] -= corners[:, :2]
        return corners

    def mask_size(self, cells: PictureSize) -> PictureSize:
        """The size of a mask as fine as a map of ``cells`` over the frame, of the upright picture's aspect.

        No cell is lost, where the picture itself is as fine; a frame that the picture was stretched to repeats some
        along one axis.
        """
        shown = [
            cells[axis] / self.frame[axis] * self.content[axis] / self.window[axis] for axis in (0, 1)
        ]  # cells a pixel of the picture
        finest = max(shown)
        return PictureSize(
            *(_sides(length, min(1, own), min(1, finest)) for length, own in zip(self.picture, shown, strict=True))
        )

    def cells(self, axis: int, cells: int, count: int) -> NDArray[np.intp]:
        """Where in a map over the frame each of ``count`` equal parts of the upright picture lies, by its centre.

        Args:
            axis: 0 for columns, 1 for rows.
            cells: The map's, along this axis.
            count: Parts of the picture, along this axis.

        Returns:
            ``(count,)``: numbers of cells; -1 where the model did not see the part.
        """
        centres = (np.arange(count) + 0.5) / count * self.picture[axis]
        inside = (centres - self.corner[axis]) / self.window[axis]
        found = np.floor(inside * self.content[axis] * cells / self.frame[axis]).astype(np.intp)
        return np.where((inside >= 0) & (inside < 1), found.clip(0, cells - 1), -1)


def place(config: ModelConfig, picture: PictureSize, region: PictureRegion | None = None) -> Placement:
    """Applies the model's resize rule to an upright picture's size, or to a region as though that were the picture."""
    cut = cut_of(region, picture)
    seen, frame = PictureSize(cut.width, cut.height), PictureSize(config.width, config.height)
    if config.resize is Resize.CROP:
        corner, window, resized = _crop(config, seen, frame)
        corner = corner[0] + cut.left, corner[1] + cut.upper
        return Placement(picture, cut, corner, window, frame, frame, resized, config.resize_filter)
    content = _fit(seen, frame) if config.resize is Resize.LETTERBOX else frame
    window = float(cut.width), float(cut.height)
    corner = float(cut.left), float(cut.upper)
    return Placement(picture, cut, corner, window, content, frame, content, config.resize_filter)


def _crop(
    config: ModelConfig, picture: PictureSize, frame: PictureSize
) -> tuple[tuple[float, float], tuple[float, float], PictureSize]:
    """Corner and window in ``picture``, and what that becomes as a whole.

    Rounds as torchvision's ``Resize`` and ``CenterCrop``: the longer side down, the crop's corner to the nearest.
    A crop can't be larger than the resized picture, so its shorter side is the least.
    """
    shorter = max(config.resize_shorter_side, *frame)
    resized = PictureSize(*(int(shorter * side / min(picture)) for side in picture))
    scale = [side / after for side, after in zip(picture, resized, strict=True)]
    left, upper = (round((after - kept) / 2) * by for after, kept, by in zip(resized, frame, scale, strict=True))
    return (left, upper), (frame.width * scale[0], frame.height * scale[1]), resized


def _sides(length: int, own: float, finest: float) -> int:
    """A letterbox is a rounding error off the aspect: not worth a repeated cell."""
    plain, wanted = round(length * own), round(length * finest)
    return max(1, plain if abs(plain - wanted) <= 1 else wanted)


def _fit(picture: PictureSize, frame: PictureSize) -> PictureSize:
    scale = min(frame.width / picture.width, frame.height / picture.height)
    return PictureSize(max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
