"""Detectors that need no suppression of overlaps: one box an object, as they were trained to answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from shoal.modelstore.output_names import query_outputs
from shoal.modelstore.outputs import BOX, END_TO_END, has_no_object
from shoal.worker.heads.detection import FoundBoxes
from shoal.worker.heads.detection_boxes import from_centres, unit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from shoal.modelconfig.model import ModelConfig
    from shoal.pictures.geometry import Placement

    Outputs = Mapping[str, NDArray[np.generic]]
    Floats = NDArray[np.float32]


class EndToEndReader:
    """Reads the model's only output, ``(n, 6)``: x1, y1, x2, y2, score, class, as YOLOv10 and YOLO26 export them.

    So do YOLOv8 and YOLO11 that were exported with ``nms=True``
    (https://github.com/ultralytics/ultralytics/blob/main/ultralytics/engine/exporter.py, ``NMSModel``).

    Parameters: ``score_threshold`` (default 0.25); ``iou_threshold`` (1), see ``BoxesScoresReader``; ``pixels`` (1): 0
    where boxes are in [0, 1] of the input.
    """

    def __init__(self, config: ModelConfig) -> None:
        """Prepares for a model that ``modelstore.outputs.misfit`` finds fit."""
        parameters = config.head_parameters
        self._output = config.outputs[0].name
        self.default_threshold = parameters.get("score_threshold", 0.25)
        self.iou_threshold = parameters.get("iou_threshold", 1.0)
        self._unit = unit(config, pixels=bool(parameters.get("pixels", 1)))
        self.slow = self.iou_threshold < 1

    def read(self, outputs: Outputs, row: int, placement: Placement, threshold: float) -> FoundBoxes:  # noqa: ARG002
        """The rows of one picture that score at least ``threshold``; those of a negative class are padding."""
        rows = cast("Floats", outputs[self._output][row]).reshape(-1, END_TO_END).astype(np.float32)
        rows = rows[~(rows[:, BOX] < threshold)]  # a NaN is kept, for the head to report
        boxes = rows[:, :BOX] / self._unit
        boxes[:, 2:] -= boxes[:, :2]
        found = FoundBoxes(boxes, rows[:, BOX], np.nan_to_num(rows[:, BOX + 1], nan=-1.0).astype(np.intp))
        return found.pick(found.classes >= 0)


class QueryReader:
    """Reads ``logits`` ``(n, classes)`` and ``pred_boxes`` ``(n, 4)``: centre x, centre y, width, height in [0, 1].

    With a last class that stands for no object a softmax makes the scores, and the best of the others counts; else a
    sigmoid does, and a box counts for each class that scores enough, as in ``post_process_object_detection`` of
    https://github.com/huggingface/transformers (DETR, and RT-DETR with its focal loss).

    Parameters: ``score_threshold`` (default 0.5); ``iou_threshold`` (1), see ``BoxesScoresReader``; ``no_object``: 1
    where the last class is none. Without it the number of labels tells.
    """

    def __init__(self, config: ModelConfig) -> None:
        """Prepares for a model that ``modelstore.outputs.misfit`` finds fit."""
        names = query_outputs(output.name for output in config.outputs)
        assert names is not None
        self._logits, self._boxes = names
        self._no_object = bool(has_no_object(config))
        self.default_threshold = config.head_parameters.get("score_threshold", 0.5)
        self.iou_threshold = config.head_parameters.get("iou_threshold", 1.0)
        self.slow = self.iou_threshold < 1

    def read(self, outputs: Outputs, row: int, placement: Placement, threshold: float) -> FoundBoxes:  # noqa: ARG002
        """The queries of one picture that score at least ``threshold``."""
        logits = cast("Floats", outputs[self._logits][row]).astype(np.float32)
        boxes = from_centres(cast("Floats", outputs[self._boxes][row]).astype(np.float32))
        if not self._no_object:
            scores = sigmoid(np.where(np.isposinf(logits), np.nan, logits))  # which the head reports
            chosen, classes = np.nonzero(~(scores < threshold))
            return FoundBoxes(boxes[chosen], scores[chosen, classes], classes)
        scores = softmax(logits)[:, :-1]
        best = scores.max(axis=1)
        chosen = np.flatnonzero(~(best < threshold))
        return FoundBoxes(boxes[chosen], best[chosen], scores[chosen].argmax(axis=1))


def sigmoid(values: Floats) -> Floats:
    """1 / (1 + e^-x) of each, without overflow."""
    small = np.exp(-np.abs(values))
    return cast("Floats", np.where(values >= 0, 1 / (1 + small), small / (1 + small)))


def softmax(values: Floats) -> Floats:
    """Along the last axis; NaN, which the head reports, where one is infinite."""
    with np.errstate(invalid="ignore", over="ignore"):  # what is too far below the largest to be told has no share
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return cast("Floats", powers / powers.sum(axis=-1, keepdims=True))
