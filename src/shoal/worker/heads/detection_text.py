"""Text detection by differentiable binarisation: a map of text probability becomes boxes of lines.

The steps and defaults are PaddleOCR's DBPostProcess (https://github.com/PaddlePaddle/PaddleOCR, Apache-2.0) for the
PP-OCR detectors; the method is Liao et al., "Real-time Scene Text Detection with Differentiable Binarization", 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import cv2
import numpy as np

from shoal.errors import Internal
from shoal.modelstore.fitting import SLACK
from shoal.worker.heads.detection import MAX_BOXES, FoundBoxes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from shoal.modelconfig.model import ModelConfig
    from shoal.pictures.geometry import Placement

    Floats = NDArray[np.float32]
    Corners = NDArray[np.floating | np.integer]

_LEAST_SIDE: Final = 3.0
"""In the map's pixels, before a box is grown; grown ones have at least 2 more."""


class TextMapReader:
    """Reads the model's only output, a map ``(1, h, w)`` or ``(h, w)`` of probabilities.

    Parameters: ``binarize_threshold`` (default 0.3) parts text from background; ``box_threshold`` (0.6) is the least
    mean probability inside a box, its score; ``unclip_ratio`` (1.5) grows boxes back: the model learnt shrunken ones.
    """

    slow = True
    iou_threshold = 1.0

    def __init__(self, config: ModelConfig) -> None:
        """Prepares for a model that ``modelstore.outputs.misfit`` finds fit."""
        self._model = config.name
        self._output = config.outputs[0].name
        parameters = config.head_parameters
        self._binarize = parameters.get("binarize_threshold", 0.3)
        self.default_threshold = parameters.get("box_threshold", 0.6)
        self._unclip_ratio = parameters.get("unclip_ratio", 1.5)

    def read(
        self, outputs: Mapping[str, NDArray[np.generic]], row: int, placement: Placement, threshold: float
    ) -> FoundBoxes:
        """The boxes around one picture's text regions that score at least ``threshold``, each of class 0.

        Raises:
            Internal: NaN, infinity, or a probability outside [0, 1].
        """
        whole = cast("Floats", outputs[self._output][row])
        if not np.isfinite(whole).all():
            raise Internal(f"model {self._model!r} answered NaN or infinity")
        if not -SLACK <= whole.min() <= whole.max() <= 1 + SLACK:
            raise Internal(f"model {self._model!r} answered a probability outside [0, 1]")
        height, width = whole.shape[-2:]
        # Outside of the picture there is no text.
        rows = round(height * placement.content.height / placement.frame.height)
        columns = round(width * placement.content.width / placement.frame.width)
        boxes, scores = self._boxes(np.ascontiguousarray(whole.reshape(height, width)[:rows, :columns]), threshold)
        size = np.array([width, height, width, height], np.float32)
        return FoundBoxes(boxes / size, scores, np.zeros(len(scores), np.intp))

    def _boxes(self, text: Floats, threshold: float) -> tuple[Floats, Floats]:
        """``(n, 4)`` in the map's pixels, and ``(n,)``."""
        contours, _ = cv2.findContours((text > self._binarize).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        boxes, scores = [], []
        for contour in contours[:MAX_BOXES]:
            centre, sides, angle = cv2.minAreaRect(contour)
            if min(sides) < _LEAST_SIDE:
                continue
            score = _mean_inside(text, cv2.boxPoints((centre, sides, angle)))
            grown = _grow(sides, self._unclip_ratio)
            if score >= threshold and min(grown) >= _LEAST_SIDE + 2:
                boxes.append(_bounds(cv2.boxPoints((centre, grown, angle))))
                scores.append(score)
        return np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32)


def _mean_inside(text: Floats, corners: Corners) -> float:
    """The mean of the map over the pixels inside a quadrilateral."""
    upper_left = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, None)
    right, lower = np.ceil(corners.max(axis=0)).astype(int) + 1
    part = text[upper_left[1] : lower, upper_left[0] : right]
    mask = np.zeros(part.shape, np.uint8)
    cv2.fillPoly(mask, [(corners - upper_left).astype(np.int32)], 1)
    return float(cv2.mean(part, mask)[0])


def _grow(sides: Sequence[float], ratio: float) -> tuple[float, float]:
    """Moves each side outwards by area x ratio / perimeter (the paper's formula for a rectangle)."""
    width, height = sides
    distance = width * height * ratio / (2 * (width + height))
    return width + 2 * distance, height + 2 * distance


def _bounds(corners: Corners) -> Floats:
    """The upright box around a quadrilateral: x, y, width, height."""
    upper_left = corners.min(axis=0)
    return np.concatenate([upper_left, corners.max(axis=0) - upper_left])
