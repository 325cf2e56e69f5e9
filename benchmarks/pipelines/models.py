"""Two small models: a detector that always finds a grid of boxes, and a classifier; both do little."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from onnx import helper

from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import Task
from shoal.modelstore.making.build import add_model
from shoal.modelstore.making.recipe import Recipe
from support.tiny_models import add_tiny_classifier, model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx

    from shoal.modelstore.formats import Runner

DETECTOR: Final = "grid-{}"
CLASSIFIER: Final = "colours"
PIPELINE: Final = "look-{}"
DETECTOR_SIDE: Final = 320
CLASSIFIER_SIDE: Final = 224
"""Pixels of a picture's width and height, as the model takes it."""
SCORE_THRESHOLD: Final = 0.5
"""What the detector's head has where nobody says otherwise."""
_BATCHING = BatchingSettings(max_batch_size=32, max_queue_delay_microseconds=2000)


def add_models(store: Path, counts: Sequence[int], instances: int = 2, runner: Runner | None = None) -> None:
    """A detector for each number of boxes, and the classifier; ``runner``: what runs them within Triton."""
    batching = replace(_BATCHING, instance_count=instances)
    for count in counts:
        settings = Recipe(name=DETECTOR.format(count), task=Task.DETECTION, head="boxes_scores", labels=("thing",))
        add_model(store, _grid(count), replace(settings, batching=batching, runner=runner))
    add_tiny_classifier(store, CLASSIFIER, CLASSIFIER_SIDE, batching=batching, runner=runner)


def _grid(count: int) -> onnx.ModelProto:
    """Overlapping boxes, each a fifth of the picture's width and a quarter of its height, all of score 0.9."""
    corners = [(0.16 * (n % 6), 0.18 * (n // 6 % 5)) for n in range(count)]
    constants: dict[str, np.ndarray] = {
        "grid": np.array([[(x, y, 0.2, 0.25) for x, y in corners]], np.float32),
        "score": np.full((1, count), 0.9, np.float32),
        "zero": np.zeros(1, np.float32),
        "row": np.array([0, 1], np.int64),
        "column": np.array([0, 1, 1], np.int64),
    }
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Reshape", ["nothing", "row"], ["in a row"]),
        helper.make_node("Reshape", ["nothing", "column"], ["in a column"]),
        helper.make_node("Add", ["in a row", "score"], ["scores"]),
        helper.make_node("Add", ["in a column", "grid"], ["boxes"]),
    ]
    return model(nodes, DETECTOR_SIDE, constants, {"boxes": [count, 4], "scores": [count]})
