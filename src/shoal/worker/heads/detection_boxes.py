"""Detectors that answer boxes: with scores beside them, or the rows of the YOLO family."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import numpy as np

from shoal.modelstore.output_names import box_outputs
from shoal.modelstore.outputs import BOX
from shoal.worker.heads.detection import FoundBoxes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from shoal.modelconfig.model import ModelConfig
    from shoal.pictures.geometry import Placement

    Outputs = Mapping[str, NDArray[np.generic]]
    Floats = NDArray[np.float32]

_MATRIX: Final = 2


class BoxesScoresReader:
    """Reads ``boxes`` ``(n, 4)``, ``scores`` ``(n,)`` and, if the model has it, ``classes`` or ``labels`` ``(n,)``.

    ``modelstore.output_names`` has the names, and what those of YOLO-NAS and TensorFlow's detectors say of the
    boxes. Scores ``(n, classes)`` will do too: then a box counts for each class that scores enough, as in torchvision's
    SSD (https://github.com/pytorch/vision/blob/main/torchvision/models/detection/ssd.py, ``postprocess_detections``).

    Parameters: ``score_threshold`` (default 0.5); ``iou_threshold`` (1): where less, of two boxes of one class that
    overlap by more only the better one stays; ``corners`` (0): 1 where boxes are x1, y1, x2, y2 and not x, y, width,
    height; ``rows_first`` (0): 1 where y stands before x; ``pixels`` (0): 1 where they are in the input's pixels and
    not in [0, 1]; ``background`` (0): classes below this number are none.
    """

    def __init__(self, config: ModelConfig) -> None:
        """Prepares for a model that ``modelstore.outputs.misfit`` finds fit."""
        names = box_outputs(output.name for output in config.outputs)
        assert names is not None
        self._boxes, self._scores, self._classes, layout = names
        parameters = {**layout, **config.head_parameters}
        self.default_threshold = parameters.get("score_threshold", 0.5)
        self.iou_threshold = parameters.get("iou_threshold", 1.0)
        self._corners = bool(parameters.get("corners"))
        self._rows_first = bool(parameters.get("rows_first"))
        self._background = parameters.get("background", 0)
        self._unit = unit(config, pixels=bool(parameters.get("pixels")))
        self.slow = self.iou_threshold < 1

    def read(self, outputs: Outputs, row: int, placement: Placement, threshold: float) -> FoundBoxes:  # noqa: ARG002
        """The boxes of one picture that score at least ``threshold``; one a class if scores are ``(n, classes)``."""
        boxes = cast("Floats", outputs[self._boxes][row]).reshape(-1, BOX)
        scores = cast("Floats", outputs[self._scores][row])
        if scores.ndim == _MATRIX and self._classes is None:
            chosen, classes = np.nonzero(~(scores < threshold))  # a NaN is kept, for the head to report
            found = FoundBoxes(boxes[chosen], scores[chosen, classes], classes)
        else:
            scores = scores.reshape(-1)
            given = np.zeros(len(scores)) if self._classes is None else outputs[self._classes][row].reshape(-1)
            found = FoundBoxes(boxes, scores, given.astype(np.intp)).pick(~(scores < threshold))
        found = found.pick(found.classes >= self._background)
        return FoundBoxes(self._normalised(found.boxes), found.scores, found.classes)

    def _normalised(self, boxes: Floats) -> Floats:
        boxes = (boxes[:, [1, 0, 3, 2]] if self._rows_first else boxes) / self._unit
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
    defaults are also from there; ``pixels`` (1): 0 where boxes are in [0, 1] of the input.
    """

    slow = True

    def __init__(self, config: ModelConfig, *, objectness: bool) -> None:
        """Prepares for a model that ``modelstore.outputs.misfit`` finds fit.

        Args:
            config: With one output.
            objectness: Whether candidates have one, and are the rows: YOLOv5. Else they are the columns: YOLOv8.
        """
        self._skipped = BOX + objectness
        self._axis = 1 if objectness else 0
        self._output = config.outputs[0].name
        self.default_threshold = config.head_parameters.get("score_threshold", 0.25)
        self.iou_threshold = config.head_parameters.get("iou_threshold", 0.45 if objectness else 0.7)
        self._unit = unit(config, pixels=bool(config.head_parameters.get("pixels", 1)))

    def read(self, outputs: Outputs, row: int, placement: Placement, threshold: float) -> FoundBoxes:  # noqa: ARG002
        """The candidates of one picture whose best class scores at least ``threshold``."""
        candidates = cast("Floats", outputs[self._output][row])
        fields = candidates.T if self._axis else candidates  # (fields, n)
        scores = fields[self._skipped :]
        if self._axis:
            with np.errstate(invalid="ignore", over="ignore"):  # the head reports what isn't finite
                scores = scores * fields[BOX]
        best = scores.max(axis=0)
        kept = np.flatnonzero(~(best < threshold))  # a NaN is kept, for the head to report
        boxes = from_centres(fields[:BOX, kept].T / self._unit)
        return FoundBoxes(boxes, best[kept], scores[:, kept].argmax(axis=0))


def unit(config: ModelConfig, *, pixels: bool) -> Floats:
    """``(4,)``: what boxes are divided by to be in [0, 1] of the model's input."""
    return np.array([config.width, config.height] * 2 if pixels else [1] * BOX, np.float32)


def from_centres(boxes: Floats) -> Floats:
    """``(n, 4)``: centre x, centre y, width, height become x, y, width, height."""
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]], axis=1)
