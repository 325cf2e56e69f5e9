"""Detection: boxes of the model's frame become boxes of the upright picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, cast

import numpy as np

from shoal.errors import ConfigurationError, Internal, InvalidRequest
from shoal.v1.inference_pb2 import DetectReply
from shoal.worker.geometry import place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from shoal.modelstore.config import ModelConfig
    from shoal.v1.inference_pb2 import ImageRequest
    from shoal.worker.geometry import Placement
    from shoal.worker.header import ImageSize

    Outputs = Mapping[str, NDArray[np.generic]]
    Floats = NDArray[np.float32]

MAX_BOXES: Final = 1000
"""Of one picture; the best ones."""


class Found(NamedTuple):
    """Boxes as a model sees them."""

    boxes: Floats
    """``(n, 4)``: x, y, width, height, normalised to [0, 1] in the model's frame."""
    scores: Floats
    """``(n,)`` in [0, 1]."""
    classes: NDArray[np.intp]
    """``(n,)``."""

    def pick(self, index: NDArray[np.generic]) -> Found:
        """Those that ``index``, a mask or numbers, names."""
        return Found(self.boxes[index], self.scores[index], self.classes[index])


class BoxReader(Protocol):
    """Reads one picture's boxes from the outputs of a batch."""

    slow: bool
    default_threshold: float
    """The model's own ``score_threshold``."""

    def read(self, outputs: Outputs, row: int, placement: Placement, threshold: float) -> Found:
        """The boxes that score at least ``threshold``, in any order."""
        ...


class DetectionHead:
    """Replies with the boxes that a reader finds, best first."""

    def __init__(self, config: ModelConfig, reader: BoxReader) -> None:
        """Prepares for a model whose outputs ``reader`` understands."""
        self._config = config
        self._reader = reader

    @property
    def slow(self) -> bool:
        """See ``Head``."""
        return self._reader.slow

    def check(self, request: ImageRequest) -> None:
        """Raises InvalidRequest if ``score_threshold`` is not in [0, 1]."""
        if request.HasField("score_threshold") and not 0 <= request.score_threshold <= 1:
            raise InvalidRequest(f"score_threshold {request.score_threshold:g} is not in [0, 1]")

    def reply(self, outputs: Outputs, row: int, request: ImageRequest, image_size: ImageSize) -> DetectReply:
        """See ``Head``."""
        placement = place(self._config, image_size)
        given = request.HasField("score_threshold")
        threshold = request.score_threshold if given else self._reader.default_threshold
        found = self._reader.read(outputs, row, placement, threshold)
        if not (np.isfinite(found.scores).all() and np.isfinite(found.boxes).all()):
            raise Internal(f"model {self._config.name!r} answered NaN or infinity")
        best = np.argsort(-found.scores, kind="stable")[:MAX_BOXES]
        return self._build(found.pick(best), placement)

    def _build(self, found: Found, placement: Placement) -> DetectReply:
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


class BoxesScoresReader:
    """Reads ``boxes`` ``(n, 4)``, ``scores`` ``(n,)`` and, if the model has it, ``classes`` ``(n,)``.

    Parameters: ``score_threshold`` (default 0.5); ``iou_threshold``: where given, of two boxes of one class that
    overlap by more only the better one stays.
    """

    slow = False

    def __init__(self, config: ModelConfig) -> None:
        """Raises ConfigurationError if an output is missing."""
        names = {output.name for output in config.outputs}
        missing = {"boxes", "scores"} - names
        if missing:
            raise ConfigurationError(
                f"model {config.name!r}: head 'boxes_scores' reads the outputs boxes and scores; "
                f"it has {', '.join(sorted(names))}"
            )
        self._has_classes = "classes" in names
        self.default_threshold = config.head_parameters.get("score_threshold", 0.5)
        self._iou_threshold = config.head_parameters.get("iou_threshold", 1.0)

    def read(self, outputs: Outputs, row: int, placement: Placement, threshold: float) -> Found:  # noqa: ARG002
        """See ``BoxReader``."""
        scores = cast("Floats", outputs["scores"][row]).reshape(-1)
        boxes = cast("Floats", outputs["boxes"][row]).reshape(-1, 4)
        classes = outputs["classes"][row].reshape(-1) if self._has_classes else np.zeros(len(scores))
        # A NaN is kept, for the head to report.
        found = Found(boxes, scores, classes.astype(np.intp)).pick(~(scores < threshold))
        return found if self._iou_threshold >= 1 else found.pick(_best_of_overlaps(found, self._iou_threshold))


def _best_of_overlaps(found: Found, iou_threshold: float) -> NDArray[np.intp]:
    """Greedy non-maximum suppression a class; the numbers of those that stay, best first."""
    order = np.argsort(-found.scores, kind="stable")[:MAX_BOXES]
    kept: list[int] = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(int(best))
        same = found.classes[order] == found.classes[best]
        order = order[~(same & (_iou(found.boxes[best], found.boxes[order]) > iou_threshold))]
    return np.array(kept, np.intp)


def _iou(box: Floats, others: Floats) -> Floats:
    """Intersection over union of one box, ``(4,)``, with each of ``(n, 4)``."""
    upper_left = np.maximum(box[:2], others[:, :2])
    lower_right = np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:])
    shared = np.clip(lower_right - upper_left, 0, None).prod(axis=1)
    union = box[2:].prod() + others[:, 2:].prod(axis=1) - shared
    return cast("Floats", shared / np.maximum(union, np.finfo(np.float32).tiny))
