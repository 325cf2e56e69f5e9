"""Detection: boxes of the model's frame become boxes of the upright picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import cv2
import numpy as np

from shoal.errors import Internal, InvalidRequest
from shoal.modelstore.fitting import SLACK
from shoal.pictures.geometry import place
from shoal.v1.inference_pb2 import DetectReply
from shoal.worker.heads.asked_region import region_of
from shoal.worker.heads.one_by_one import OneByOne

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from shoal.modelconfig.model import ModelConfig
    from shoal.pictures.geometry import Placement
    from shoal.pictures.header import PictureSize
    from shoal.v1.inference_pb2 import ImageRequest

    Outputs = Mapping[str, NDArray[np.generic]]
    Floats = NDArray[np.float32]

MAX_BOXES: Final = 1000
"""The most boxes of a picture: the best, before overlapping ones are dropped. OpenCV compares 1000 in 2.4 ms."""


class FoundBoxes(NamedTuple):
    """Boxes as a model sees them."""

    boxes: Floats
    """``(n, 4)``: x, y, width, height, normalised to [0, 1] in the model's frame."""
    scores: Floats
    """``(n,)`` in [0, 1]."""
    classes: NDArray[np.intp]
    """``(n,)``."""

    def pick(self, index: NDArray[np.generic]) -> FoundBoxes:
        """Those that ``index``, a mask or numbers, names."""
        return FoundBoxes(self.boxes[index], self.scores[index], self.classes[index])


class BoxReader(Protocol):
    """Reads one picture's boxes from the outputs of a batch."""

    slow: bool
    default_threshold: float
    """The model's own ``score_threshold``."""
    iou_threshold: float
    """Intersection over union, 0 to 1: of two boxes of one class that overlap by more, the better stays. 1: both."""

    def read(self, outputs: Outputs, row: int, placement: Placement, threshold: float) -> FoundBoxes:
        """The boxes that score at least ``threshold``, in any order."""
        ...


class DetectionHead(OneByOne[DetectReply]):
    """Replies with the boxes that a reader finds, best first."""

    def __init__(self, config: ModelConfig, reader: BoxReader) -> None:
        """Prepares for a model whose outputs ``reader`` understands."""
        self._config = config
        self._reader = reader

    @property
    def slow(self) -> bool:
        """Whether the reader is, or overlapping boxes are compared: milliseconds."""
        return self._reader.slow

    def check(self, request: ImageRequest) -> None:
        """Raises InvalidRequest if ``score_threshold`` is not in [0, 1]."""
        check_score_threshold(request)

    def reply(self, outputs: Outputs, row: int, request: ImageRequest, picture_size: PictureSize) -> DetectReply:
        """The boxes of one picture, best first, in [0, 1] of the upright picture; ``MAX_BOXES`` at most.

        Raises:
            Internal: NaN, infinity, or a score outside [0, 1].
        """
        placement = place(self._config, picture_size, region_of(request))
        given = request.HasField("score_threshold")
        threshold = request.score_threshold if given else self._reader.default_threshold
        found = self._reader.read(outputs, row, placement, threshold)
        if not (np.isfinite(found.scores).all() and np.isfinite(found.boxes).all()):
            raise Internal(f"model {self._config.name!r} answered NaN or infinity")
        if found.scores.size and not -SLACK <= found.scores.min() <= found.scores.max() <= 1 + SLACK:
            raise Internal(f"model {self._config.name!r} answered a score outside [0, 1]")
        found = found._replace(scores=found.scores.clip(0, 1))
        best = found.pick(np.argsort(-found.scores, kind="stable")[:MAX_BOXES])
        if self._reader.iou_threshold < 1:
            best = best.pick(_suppress(best, self._reader.iou_threshold))
        return self._build(best, placement)

    def _build(self, found: FoundBoxes, placement: Placement) -> DetectReply:
        labels = self._config.labels
        reply = DetectReply()
        boxes = placement.to_picture(found.boxes).tolist()
        for (x, y, width, height), score, index in zip(
            boxes, found.scores.tolist(), found.classes.tolist(), strict=True
        ):
            if width > 0 and height > 0:  # else it lies beside the picture
                label = labels[index] if 0 <= index < len(labels) else ""
                reply.boxes.add(x=x, y=y, width=width, height=height, index=index, label=label, score=score)
        return reply


def check_score_threshold(request: ImageRequest) -> None:
    """Raises InvalidRequest if there is a ``score_threshold``, and not one in [0, 1]."""
    if request.HasField("score_threshold") and not 0 <= request.score_threshold <= 1:
        raise InvalidRequest(f"score_threshold {request.score_threshold:g} is not in [0, 1]")


def _suppress(found: FoundBoxes, iou_threshold: float) -> NDArray[np.intp]:
    """Greedy non-maximum suppression within each class: the numbers, in order, of the boxes that stay, best first.

    Args:
        found: Best first.
        iou_threshold: See ``BoxReader``.
    """
    if not len(found.scores):
        return np.empty(0, np.intp)
    boxes = found.boxes.astype(np.float64)
    # OpenCV moves each class beside the others, by its number and the largest coordinate: it counts on small numbers,
    # and on coordinates of 0 or more.
    boxes[:, :2] -= boxes[:, :2].min(axis=0)
    boxes[:, 2:] = boxes[:, 2:].clip(min=0)
    classes = np.unique(found.classes, return_inverse=True)[1]
    # OpenCV drops scores of 0. Ranks say the same and break ties by order.
    ranks = list(range(len(boxes), 0, -1))
    kept = cv2.dnn.NMSBoxesBatched(boxes.tolist(), ranks, classes.tolist(), 0.0, iou_threshold)
    return np.sort(np.asarray(kept, np.intp).ravel())
