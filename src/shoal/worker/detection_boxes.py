"""Detectors that answer boxes: with scores beside them, or the rows of the YOLO family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import numpy as np

from shoal.errors import ConfigurationError
from shoal.worker.detection import Found

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from shoal.modelstore.config import ModelConfig
    from shoal.worker.geometry import Placement

    Outputs = Mapping[str, NDArray[np.generic]]
    Floats = NDArray[np.float32]

_CLASS_NAMES: Final = ("classes", "labels")
_MATRIX: Final = 2
_BOX: Final = 4


class BoxesScoresReader:
    """Reads ``boxes`` ``(n, 4)``, ``scores`` ``(n,)`` and, if the model has it, ``classes`` or ``labels`` ``(n,)``.

    Scores ``(n, classes)`` will do too: then a box counts for each class that scores enough, as in torchvision's SSD
    (https://github.com/pytorch/vision/blob/main/torchvision/models/detection/ssd.py, ``postprocess_detections``).

    Parameters: ``score_threshold`` (default 0.5); ``iou_threshold`` (1): where less, of two boxes of one class that
    overlap by more only the better one stays; ``corners`` (0): 1 where boxes are x1, y1, x2, y2 and not x, y, width,
    height; ``pixels`` (0): 1 where they are in the input's pixels and not in [0, 1]; ``background`` (0): classes
    below this number are none.
    """

    def __init__(self, config: ModelConfig) -> None:
        """Raises ConfigurationError if an output is missing."""
        names = {output.name for output in config.outputs}
        missing = {"boxes", "scores"} - names
        if missing:
            raise ConfigurationError(
                f"model {config.name!r}: head 'boxes_scores' reads the outputs boxes and scores; "
                f"it has {', '.join(sorted(names))}"
            )
        parameters = config.head_parameters
        self._classes = next((name for name in _CLASS_NAMES if name in names), None)
        self.default_threshold = parameters.get("score_threshold", 0.5)
        self.iou_threshold = parameters.get("iou_threshold", 1.0)
        self._corners = bool(parameters.get("corners"))
        self._background = parameters.get("background", 0)
        sides = (config.width, config.height) if parameters.get("pixels") else (1, 1)
        self._unit = np.array([*sides, *sides], np.float32)
        self.slow = self.iou_threshold < 1

    def read(self, outputs: Outputs, row: int, placement: Placement, threshold: float) -> Found:  # noqa: ARG002
        """See ``BoxReader``."""
        boxes = cast("Floats", outputs["boxes"][row]).reshape(-1, _BOX)
        scores = cast("Floats", outputs["scores"][row])
        if scores.ndim == _MATRIX and self._classes is None:
            chosen, classes = np.nonzero(~(scores < threshold))  # a NaN is kept, for the head to report
            found = Found(boxes[chosen], scores[chosen, classes], classes)
        else:
            scores = scores.reshape(-1)
            given = np.zeros(len(scores)) if self._classes is None else outputs[self._classes][row].reshape(-1)
            found = Found(boxes, scores, given.astype(np.intp)).pick(~(scores < threshold))
        found = found.pick(found.classes >= self._background)
        return Found(self._normalised(found.boxes), found.scores, found.classes)

    def _normalised(self, boxes: Floats) -> Floats:
        boxes = boxes / self._unit
        if self._corners:
            boxes[:, 2:] -= boxes[:, :2]
        return boxes


class YoloReader:
    """Reads the model's only output, candidates with centre x, centre y, width, height in the input's pixels.

    YOLOv5 and its like, ``(n, 5 + classes)``: then an objectness, and a probability a class; a score is their product
    (https://github.com/ultralytics/yolov5/blob/master/utils/general.py, ``non_max_suppression``). YOLOv8 and its like,
    ``(4 + classes, n)``: no objectness (https://github.com/ultralytics/ultralytics/blob/main/ultralytics/utils/nms.py).
    Of each candidate the best class counts, as there.

    Parameters: ``score_threshold`` (default 0.25) and ``iou_threshold`` (0.45 for YOLOv5, 0.7 for YOLOv8), whose
    defaults are also from there.
    """

    slow = True

    def __init__(self, config: ModelConfig, *, objectness: bool) -> None:
        """Prepares for a model.

        Args:
            config: With one output.
            objectness: Whether candidates have one, and are the rows: YOLOv5. Else they are the columns: YOLOv8.

        Raises:
            ConfigurationError: not one output of two dimensions, or no class in it.
        """
        self._skipped = _BOX + objectness
        self._axis = 1 if objectness else 0
        shape = config.outputs[0].shape
        if len(config.outputs) != 1 or len(shape) != _MATRIX or 0 <= shape[self._axis] <= self._skipped:
            wanted = "[n, 5 + classes]" if objectness else "[4 + classes, n]"
            found = ", ".join(f"{output.name} {list(output.shape)}" for output in config.outputs)
            raise ConfigurationError(
                f"model {config.name!r}: head {config.head!r} reads one output {wanted}; it has {found}"
            )
        self._output = config.outputs[0].name
        self.default_threshold = config.head_parameters.get("score_threshold", 0.25)
        self.iou_threshold = config.head_parameters.get("iou_threshold", 0.45 if objectness else 0.7)
        self._frame = np.array([config.width, config.height], np.float32)

    def read(self, outputs: Outputs, row: int, placement: Placement, threshold: float) -> Found:  # noqa: ARG002
        """See ``BoxReader``."""
        candidates = cast("Floats", outputs[self._output][row])
        fields = candidates.T if self._axis else candidates  # (fields, n)
        scores = fields[self._skipped :]
        if self._axis:
            scores = scores * fields[_BOX]
        best = scores.max(axis=0)
        kept = np.flatnonzero(~(best < threshold))  # a NaN is kept, for the head to report
        centres, sizes = fields[:2, kept].T / self._frame, fields[2:_BOX, kept].T / self._frame
        boxes = np.concatenate([centres - sizes / 2, sizes], axis=1)
        return Found(boxes, best[kept], scores[:, kept].argmax(axis=0))
