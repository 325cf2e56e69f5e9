"""The ``shoal.…`` parameters of a config.pbtxt: what Shoal adds to Triton's own fields."""

from __future__ import annotations

import difflib

from shoal.modelconfig.model import Task

TASK = "shoal.task"
RESIZE = "shoal.resize"
RESIZE_SHORTER_SIDE = "shoal.resize_shorter_side"
RESIZE_FILTER = "shoal.resize_filter"
HEAD = "shoal.head"
MEAN = "shoal.mean"
STD = "shoal.std"
LANES = "shoal.lanes"
"""Batches that one instance executes at once, on streams of its own."""
PART_OF = "shoal.part_of"
"""The ensemble of which a model is a step: Triton runs it, and nobody calls it by itself."""
MODEL_FILENAME = "shoal.model_filename"
"""What the ``model.py`` of Triton's Python backend runs: a file beside it."""
RUNNER_INPUT, RUNNER_MEAN, RUNNER_STD = "shoal.runner.input", "shoal.runner.mean", "shoal.runner.std"
"""For the GPU runner: what the network behind it takes, such as ``FP16 NCHW``, made of uint8 NHWC frames."""

PREFIX = "shoal."
RUNNER = (LANES, MODEL_FILENAME, RUNNER_INPUT, RUNNER_MEAN, RUNNER_STD)
KEYS = (TASK, RESIZE, RESIZE_SHORTER_SIDE, RESIZE_FILTER, HEAD, MEAN, STD, PART_OF, *RUNNER)

HEADS: dict[str, Task] = {
    "softmax": Task.CLASSIFICATION,
    "probabilities": Task.CLASSIFICATION,
    "db": Task.DETECTION,
    "boxes_scores": Task.DETECTION,
    "end_to_end": Task.DETECTION,
    "detr": Task.DETECTION,
    "yolov5": Task.DETECTION,
    "yolov8": Task.DETECTION,
    "argmax": Task.SEGMENTATION,
    "class_map": Task.SEGMENTATION,
    "sigmoid": Task.SEGMENTATION,
    "foreground": Task.SEGMENTATION,
}
"""A head, and the task that it answers."""

DEFAULT_HEAD = {Task.CLASSIFICATION: "softmax", Task.DETECTION: "boxes_scores", Task.SEGMENTATION: "argmax"}

HEAD_PARAMETERS: dict[str, tuple[str, ...]] = {
    "db": ("binarize_threshold", "box_threshold", "unclip_ratio"),
    "boxes_scores": ("score_threshold", "iou_threshold", "corners", "pixels", "rows_first", "background"),
    "end_to_end": ("score_threshold", "iou_threshold", "pixels"),
    "detr": ("score_threshold", "iou_threshold", "no_object"),
    "yolov5": ("score_threshold", "iou_threshold", "pixels"),
    "yolov8": ("score_threshold", "iou_threshold", "pixels"),
    "argmax": ("channels_last",),
    "sigmoid": ("threshold",),
    "foreground": ("threshold",),
}
"""The numbers that a head reads from ``shoal.head.<name>``."""


def known(head: str) -> list[str]:
    """All keys that a model with this head may have."""
    return [*KEYS, *(f"{HEAD}.{name}" for name in HEAD_PARAMETERS.get(head, ()))]


def suggestion(word: str, choices: list[str]) -> str:
    """A half sentence that names the closest of ``choices``, or all of them."""
    close = difflib.get_close_matches(word, choices, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(choices)}"
