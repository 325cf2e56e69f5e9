"""Which of a model's outputs a head reads, as far as names say it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class BoxOutputs(NamedTuple):
    """The names of what a detector answers, and how its boxes are written where the names say it."""

    boxes: str
    scores: str
    classes: str | None
    layout: Mapping[str, float]
    """Defaults of head parameters."""


_CORNERS_IN_PIXELS: Final = {"corners": 1.0, "pixels": 1.0, "iou_threshold": 0.7, "score_threshold": 0.25}
_BOXES: Final[dict[str, dict[str, float]]] = {
    "boxes": {},
    "bboxes": {},
    "det_boxes": {},
    "pred_bboxes": _CORNERS_IN_PIXELS,
    "pred_boxes": _CORNERS_IN_PIXELS,
    "detection_boxes": {"corners": 1.0, "rows_first": 1.0},
}
"""Names of boxes. Those of super-gradients' YOLO-NAS (``pred_…``) and of TensorFlow's detection API (``detection_…``:
https://github.com/tensorflow/models/blob/master/research/object_detection/exporter_lib_v2.py) say how they are written.
"""
_SCORES: Final = ("scores", "pred_scores", "detection_scores", "det_scores")
_CLASSES: Final = ("classes", "labels", "pred_classes", "pred_labels", "detection_classes", "det_classes")
_LOGITS: Final = ("logits", "pred_logits")
_NAMED: Final = {"softmax": _LOGITS, "probabilities": ("probabilities", "probs")}
"""Heads that read one output, and its usual names."""
_PREFIX: Final = re.compile(r"graph\d+_")
"""What super-gradients puts before its names."""


def box_outputs(names: Iterable[str]) -> BoxOutputs | None:
    """Which of a model's outputs ``boxes_scores`` reads; None: there aren't any such."""
    plain = {_PREFIX.sub("", name): name for name in names}
    boxes, scores = _first(_BOXES, plain), _first(_SCORES, plain)
    if boxes is None or scores is None:
        return None
    classes = _first(_CLASSES, plain)
    return BoxOutputs(plain[boxes], plain[scores], None if classes is None else plain[classes], _BOXES[boxes])


def query_outputs(names: Iterable[str]) -> tuple[str, str] | None:
    """The logits and the boxes that ``detr`` reads; None: there aren't any such."""
    known = set(names)
    logits = _first(_LOGITS, known)
    return None if logits is None or "pred_boxes" not in known else (logits, "pred_boxes")


def _first(wanted: Iterable[str], names: Iterable[str]) -> str | None:
    known = set(names)
    return next((name for name in wanted if name in known), None)


def needed(head: str, names: Sequence[str]) -> tuple[str, ...]:
    """Those of a model's outputs that ``head`` reads; all of them where names don't tell."""
    if head == "boxes_scores" and (boxes := box_outputs(names)):
        return tuple(name for name in (boxes.boxes, boxes.scores, boxes.classes) if name)
    if head == "detr" and (queries := query_outputs(names)):
        return queries
    if head in _NAMED and (name := _first(_NAMED[head], names)):
        return (name,)
    return tuple(names)
