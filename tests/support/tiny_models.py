"""Real models, a few hundred bytes each, whose answers can be told by looking at the picture."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import Task
from shoal.modelstore.making.build import add_model
from shoal.modelstore.making.recipe import Recipe
from shoal.modelstore.making.wrap import wrap
from shoal.modelstore.repository import read_model

if TYPE_CHECKING:
    from pathlib import Path

    import onnx

    from shoal.modelconfig.model import ModelConfig

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


def add_mixing_classifier(store: Path, name: str = "mixing", **recipe: Any) -> ModelConfig:
    """``mixing_classifier``, past all that ``model add`` looks at. Head ``probabilities``."""
    settings = replace(Recipe(name=name, task=Task.CLASSIFICATION, labels=COLOURS, batching=BATCHING), **recipe)
    path = add_model(store, classifier(), settings).path
    config = path.parent.parent / "config.pbtxt"
    config.write_text(config.read_text().replace('"softmax"', '"probabilities"'))
    path.write_bytes(wrap(mixing_classifier(), settings).model.SerializeToString())
    return read_model(store, name)


def add_slow_classifier(store: Path, name: str = "slow", **recipe: Any) -> ModelConfig:
    """The tiny classifier behind convolutions that change nothing and take some 10 ms of a core a picture."""
    settings = Recipe(name=name, task=Task.CLASSIFICATION, labels=COLOURS, batching=BATCHING)
    return add_model(store, slow_classifier(), replace(settings, **recipe))


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


def add_tiny_segmenter(
    store: Path,
    name: str = "tiny-segmenter",
    size: int = 32,
    *,
    version: int | None = None,
    stride: int = 1,
    channels_last: bool = False,
    **recipe: Any,
) -> ModelConfig:
    """A segmenter that names each cell's colour as ``add_tiny_classifier`` does; a cell is ``stride`` pixels wide."""
    parameters = {"channels_last": 1.0} if channels_last else {}
    settings = Recipe(name=name, task=Task.SEGMENTATION, labels=COLOURS, head_parameters=parameters, batching=BATCHING)
    made = segmenter(size, stride=stride, channels_last=channels_last)
    return add_model(store, made, replace(settings, **recipe), version=version)


def add_tiny_yolo(store: Path, name: str = "tiny-yolo", *, version: int | None = None, **recipe: Any) -> ModelConfig:
    """A detector in the manner of YOLOv8, or, with ``head="yolov5"``, of YOLOv5; see ``yolo``."""
    settings = Recipe(name=name, task=Task.DETECTION, head="yolov8", labels=COLOURS[:3], batching=BATCHING)
    settings = replace(settings, **recipe)
    return add_model(store, yolo(objectness=settings.head == "yolov5"), settings, version=version)


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


def mixing_classifier() -> onnx.ModelProto:
    """``classifier`` with a softmax over all pictures of a batch, as an export for one has it: right for one."""
    made = classifier()
    made.graph.node[-1].output[0] = "own"
    made.graph.node.extend(
        [
            helper.make_node("Reshape", ["own", "one row"], ["flat"]),
            helper.make_node("Softmax", ["flat"], ["soft"], axis=1),
            helper.make_node("Reshape", ["soft", "rows"], ["logits"]),
        ]
    )
    made.graph.initializer.append(numpy_helper.from_array(np.array([1, -1]), "one row"))
    made.graph.initializer.append(numpy_helper.from_array(np.array([-1, 4]), "rows"))
    return made


def slow_classifier(layers: int = 24, channels: int = 64) -> onnx.ModelProto:
    """As ``classifier``; its file is small, since all layers have the same weights: each channel's own value."""
    widen = np.zeros((channels, 3, 1, 1), np.float32)
    widen[range(3), range(3)] = 1
    same = np.zeros((channels, channels, 3, 3), np.float32)
    same[range(channels), range(channels), 1, 1] = 1
    weights = np.zeros((channels, 4), np.float32)
    weights[:3] = -10
    weights[range(3), range(3)] = 20
    weights[:, 3] = 0
    nodes = [helper.make_node("Conv", ["input", "widen"], ["0"])]
    nodes += [helper.make_node("Conv", [str(n), "same"], [str(n + 1)], pads=[1, 1, 1, 1]) for n in range(layers)]
    nodes += [
        helper.make_node("GlobalAveragePool", [str(layers)], ["means"]),
        helper.make_node("Flatten", ["means"], ["features"]),
        helper.make_node("Gemm", ["features", "weights", "bias"], ["logits"]),
    ]
    constants: dict[str, np.ndarray] = {
        "widen": widen,
        "same": same,
        "weights": weights,
        "bias": np.array([0, 0, 0, 6], np.float32),
    }
    return model(nodes, 32, constants, {"logits": [4]})


def detector(size: int | None = 32) -> onnx.ModelProto:
    """float32 NCHW in [0, 1] to ``boxes`` and ``scores``."""
    assert size is None or size % 2 == 0
    half = (size or 32) // 2
    constants: dict[str, np.ndarray] = {
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


def segmenter(size: int = 32, *, stride: int = 1, channels_last: bool = False) -> onnx.ModelProto:
    """float32 NCHW in [0, 1] to ``logits``, ``(4, h, w)`` or ``(h, w, 4)``: those of ``classifier`` for each cell."""
    weights = np.full((4, 3, 1, 1), -10, np.float32)
    weights[range(3), range(3)] = 20
    weights[3] = 0
    side = size // stride
    nodes = [
        helper.make_node("AveragePool", ["input"], ["cells"], kernel_shape=[stride] * 2, strides=[stride] * 2),
        helper.make_node("Conv", ["cells", "weights", "bias"], ["planes" if channels_last else "logits"]),
    ]
    if channels_last:
        nodes.append(helper.make_node("Transpose", ["planes"], ["logits"], perm=[0, 2, 3, 1]))
    constants: dict[str, np.ndarray] = {"weights": weights, "bias": np.array([0, 0, 0, 6], np.float32)}
    return model(nodes, size, constants, {"logits": [side, side, 4] if channels_last else [4, side, side]})


def yolo(*, objectness: bool) -> onnx.ModelProto:
    """float32 NCHW in [0, 1], 32 x 32, to ``candidates``: a box for each 8 x 8 cell, and one 1 pixel off.

    Classes are red, green and blue: a cell of a pure colour scores 0.99 and more, its double 0.9 of that, any other
    nearly nothing. ``(7, 32)``, or with ``objectness``, which is always 1, ``(32, 8)``.
    """
    centres = [(8 * column + 4, 8 * row + 4) for row in range(4) for column in range(4)]
    boxes = np.array([[(x + off, y, 8, 8) for off in (0, 1) for x, y in centres]], np.float32).transpose(0, 2, 1)
    weights = np.full((3, 3, 1, 1), -20, np.float32)
    weights[range(3), range(3)] = 20
    constants: dict[str, np.ndarray] = {
        "weights": weights,
        "bias": np.full(3, -10, np.float32),
        "less": np.array([0.9], np.float32),
        "zero": np.zeros(1, np.float32),
        "one": np.ones(1, np.float32),
        "flat": np.array([0, 3, 16], np.int64),
        "fixed": boxes,
    }
    nodes = [
        helper.make_node("AveragePool", ["input"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Conv", ["cells", "weights", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["grid"]),
        helper.make_node("Reshape", ["grid", "flat"], ["first"]),
        helper.make_node("Mul", ["first", "less"], ["second"]),
        helper.make_node("Concat", ["first", "second"], ["scores"], axis=2),
        helper.make_node("ReduceMax", ["scores"], ["best"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["best", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "fixed"], ["boxes"]),
    ]
    if objectness:
        nodes += [
            helper.make_node("Add", ["nothing", "one"], ["objectness"]),
            helper.make_node("Concat", ["boxes", "objectness", "scores"], ["columns"], axis=1),
            helper.make_node("Transpose", ["columns"], ["candidates"], perm=[0, 2, 1]),
        ]
    else:
        nodes.append(helper.make_node("Concat", ["boxes", "scores"], ["candidates"], axis=1))
    return model(nodes, 32, constants, {"candidates": [32, 8] if objectness else [7, 32]})


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
