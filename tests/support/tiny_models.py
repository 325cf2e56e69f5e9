"""Real models, a few hundred bytes each, whose answers can be told by looking at the picture."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from shoal.batching.settings import BatchingSettings
from shoal.modelstore.build import add_model
from shoal.modelstore.config import Task
from shoal.modelstore.recipe import Recipe

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from shoal.modelstore.config import ModelConfig

COLOURS = ("red", "green", "blue", "grey")
QUADRANTS = ((0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 0.5, 0.5), (0.0, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5))
"""The detector's boxes, x, y, width, height: upper left, upper right, lower left, lower right."""

BATCHING = BatchingSettings(max_batch_size=4, max_queue_delay_microseconds=1000, instance_count=2)


def add_tiny_classifier(
    store: Path,
    name: str = "tiny",
    size: int = 32,
    classes: int = 4,
    *,
    version: int | None = None,
    **recipe: Any,
) -> ModelConfig:
    """A classifier that names the dominant colour: 0 red, 1 green, 2 blue, 3 grey (none dominates); never another.

    A pure colour has a probability of 0.99 and more. ``recipe``: fields of ``Recipe``, such as ``batching=``.
    """
    labels = (*COLOURS, *(f"class-{index}" for index in range(len(COLOURS), classes)))[:classes]
    settings = Recipe(name=name, task=Task.CLASSIFICATION, labels=labels, batching=BATCHING)
    return add_model(store, classifier(size, classes), replace(settings, **recipe), version=version)


def add_tiny_detector(
    store: Path,
    name: str = "tiny-detector",
    size: int = 32,
    *,
    version: int | None = None,
    **recipe: Any,
) -> ModelConfig:
    """A detector with one box a quadrant (``QUADRANTS``), whose score is the quadrant's mean brightness in [0, 1].

    Head ``boxes_scores``: ``boxes`` (batch, 4, 4) and ``scores`` (batch, 4), label "bright".
    """
    settings = Recipe(name=name, task=Task.DETECTION, head="boxes_scores", labels=("bright",), batching=BATCHING)
    return add_model(store, detector(size), replace(settings, **recipe), version=version)


def classifier(size: int | None = 32, classes: int = 4) -> onnx.ModelProto:
    """float32 NCHW in [0, 1] to logits: 20 x a colour's lead over the mean of the other two, and 6 for grey."""
    weights = np.zeros((3, classes), np.float32)
    bias = np.full(classes, -100, np.float32)
    for colour in range(min(classes, 3)):
        weights[:, colour] = -10
        weights[colour, colour] = 20
        bias[colour] = 0
    bias[3:4] = 6
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["means"]),
        helper.make_node("Flatten", ["means"], ["features"]),
        helper.make_node("Gemm", ["features", "weights", "bias"], ["logits"]),
    ]
    return model(nodes, size, {"weights": weights, "bias": bias}, {"logits": [classes]})


def detector(size: int | None = 32) -> onnx.ModelProto:
    """float32 NCHW in [0, 1] to ``boxes`` and ``scores``."""
    assert size is None or size % 2 == 0
    half = (size or 32) // 2
    constants = {
        "quadrants": np.array([QUADRANTS], np.float32),
        "zero": np.zeros(1, np.float32),
        "flat": np.array([0, 4], np.int64),
        "column": np.array([0, 4, 1], np.int64),
    }
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("AveragePool", ["grey"], ["means"], kernel_shape=[half, half], strides=[half, half]),
        helper.make_node("Reshape", ["means", "flat"], ["scores"]),
        helper.make_node("Reshape", ["means", "column"], ["columns"]),
        helper.make_node("Mul", ["columns", "zero"], ["zeros"]),
        helper.make_node("Add", ["zeros", "quadrants"], ["boxes"]),
    ]
    return model(nodes, size, constants, {"boxes": [4, 4], "scores": [4]})


def model(
    nodes: list[onnx.NodeProto],
    size: int | None,
    constants: dict[str, np.ndarray],
    outputs: dict[str, list[int]],
    *,
    batch: int | str = "n",
    elem_type: int = TensorProto.FLOAT,
    channels_last: bool = False,
) -> onnx.ModelProto:
    """A checked model with one picture, ``input``; a size of None leaves height and width open."""
    sides: list[int | str] = ["h", "w"] if size is None else [size, size]
    shape = [batch, *sides, 3] if channels_last else [batch, 3, *sides]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", elem_type, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *dims]) for name, dims in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(made)
    return made
