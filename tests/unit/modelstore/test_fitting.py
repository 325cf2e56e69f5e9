from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from shoal.engine.limits import excess
from shoal.modelconfig import keys
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import Tensor
from shoal.modelstore import ending, fitting, outputs
from support.pictures import config

if TYPE_CHECKING:
    from shoal.modelconfig.model import ModelConfig

RANDOM = np.random.default_rng(11)


def model(head: str, labels: int = 0, **changes: Any) -> ModelConfig:
    shapes = changes.pop("shapes")
    tensors = tuple(Tensor(name, dtype, shape) for name, (dtype, shape) in shapes.items())
    names = tuple(map(str, range(labels)))
    return config(640, 640, head=head, task=keys.HEADS[head], outputs=tensors, labels=names, **changes)


def fit(head: str, **values: Any) -> str:
    """What is said of a model that answers these to three pictures: ``(3, *shape)`` each, or one for all of them."""
    parameters = values.pop("parameters", {})
    arrays = {name: np.asarray(value, np.float32) for name, value in values.items()}
    given = model(
        head,
        shapes={name: ("float32", value.shape[1:]) for name, value in arrays.items()},
        head_parameters=parameters,
        labels=3,
    )
    return fitting.misfit(given, [{name: value[row : row + 1] for name, value in arrays.items()} for row in range(3)])


def softmaxed(*shape: int) -> np.ndarray:
    powers = np.exp(RANDOM.normal(0, 3, shape))
    return powers / powers.sum(axis=-1, keepdims=True)


def corners(count: int, scale: float) -> np.ndarray:
    points = np.sort(RANDOM.uniform(0, scale, (3, count, 2, 2)), axis=2)
    return points.reshape(3, count, 4)


def sized(count: int, scale: float) -> np.ndarray:
    """x, y, width, height within a frame."""
    boxes = corners(count, scale)
    boxes[..., 2:] -= boxes[..., :2]
    return boxes


def ends(count: int = 40, scale: float = 640) -> np.ndarray:
    scores = -np.sort(-RANDOM.uniform(0, 1, (3, count, 1)), axis=1)
    return np.concatenate([corners(count, scale), scores, RANDOM.integers(0, 80, (3, count, 1))], axis=2)


def candidates(classes: int = 3, count: int = 100, scale: float = 640) -> np.ndarray:
    boxes = sized(count, scale)
    boxes[..., :2] += boxes[..., 2:] / 2
    return np.concatenate([boxes, RANDOM.uniform(0, 1, (3, count, classes))], axis=2).transpose(0, 2, 1)


def pose() -> np.ndarray:
    points = np.concatenate([RANDOM.uniform(0, 640, (3, 34, 100)), RANDOM.uniform(0, 1, (3, 17, 100))], axis=1)
    return np.concatenate([candidates(1), points], axis=1)


def oriented() -> np.ndarray:
    return np.concatenate([candidates(15), RANDOM.uniform(-0.78, 2.35, (3, 1, 100))], axis=1)


GOOD: dict[str, dict[str, Any]] = {
    "logits": {"head": "softmax", "out": RANDOM.normal(0, 3, (3, 10))},
    "logits that happen to be small": {"head": "softmax", "out": RANDOM.uniform(0, 1, (3, 10))},
    "logarithms of probabilities": {"head": "softmax", "out": np.log(softmaxed(3, 10))},
    "the same for every picture": {"head": "softmax", "out": np.eye(10)[[4, 4, 4]]},
    "masked logits": {"head": "softmax", "out": np.where(np.eye(10)[:3] > 0, -np.inf, 1.5)},
    "probabilities": {"head": "probabilities", "out": softmaxed(3, 10)},
    "several labels a picture": {"head": "probabilities", "out": RANDOM.uniform(0, 1, (3, 10))},
    "one probability": {"head": "probabilities", "out": RANDOM.uniform(0, 1, (3, 1))},
    "end to end": {"head": "end_to_end", "out": ends()},
    "end to end in the unit square": {"head": "end_to_end", "out": ends(40, 1), "parameters": {"pixels": 0}},
    "end to end, nothing found": {"head": "end_to_end", "out": np.zeros((3, 300, 6))},
    "end to end, padded": {"head": "end_to_end", "out": np.full((3, 300, 6), -1)},
    "yolov8": {"head": "yolov8", "out": candidates()},
    "yolov8 in the unit square": {"head": "yolov8", "out": candidates(scale=1), "parameters": {"pixels": 0}},
    "yolov5": {"head": "yolov5", "out": candidates(4).transpose(0, 2, 1)},
    "yolov5 of one class": {"head": "yolov5", "out": candidates(2).transpose(0, 2, 1)},
    "boxes": {"head": "boxes_scores", "boxes": sized(40, 1), "scores": RANDOM.uniform(0, 1, (3, 40))},
    "padded scores": {"head": "boxes_scores", "boxes": np.zeros((3, 40, 4)), "scores": np.full((3, 40), -1)},
    "yolo-nas": {"head": "boxes_scores", "pred_bboxes": corners(40, 640), "pred_scores": softmaxed(3, 40, 80)},
    "tensorflow": {
        "head": "boxes_scores", "detection_boxes": corners(40, 1), "detection_scores": RANDOM.uniform(0, 1, (3, 40)),
        "detection_classes": RANDOM.integers(1, 90, (3, 40)),
    },
    "detr": {"head": "detr", "logits": RANDOM.normal(-3, 3, (3, 9, 4)), "pred_boxes": sized(9, 1)},
    "text": {"head": "db", "out": RANDOM.uniform(0, 1, (3, 1, 8, 8))},
    "classes": {"head": "class_map", "out": RANDOM.integers(0, 5, (3, 8, 8))},
    "logits a pixel": {"head": "sigmoid", "out": RANDOM.normal(0, 3, (3, 8, 8))},
    "probabilities a pixel": {"head": "foreground", "out": RANDOM.uniform(0, 1, (3, 8, 8))},
    "scores a pixel": {"head": "argmax", "out": RANDOM.normal(0, 3, (3, 4, 8, 8))},
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_answers_that_fit(case: str) -> None:
    assert fit(**GOOD[case]) == ""


MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "a softmax twice": ({"head": "softmax", "out": softmaxed(3, 10)}, "use head probabilities"),
    "logits": ({"head": "probabilities", "out": RANDOM.normal(0, 3, (3, 10))}, "head softmax reads logits"),
    "poses": ({"head": "yolov8", "out": pose()}, "Key points of poses are not supported"),
    "oriented boxes": ({"head": "yolov8", "out": oriented()}, "Oriented boxes"),
    "end to end": ({"head": "yolov5", "out": ends()}, "are read by head end_to_end"),
    "end to end of one class": (
        {"head": "yolov5", "out": ends() * [1, 1, 1, 1, 1, 0]}, "are read by head end_to_end"),
    "candidates of one class": ({"head": "end_to_end", "out": candidates(2).transpose(0, 2, 1)}, "isn't whole"),
    "end to end, another order": (
        {"head": "end_to_end", "out": ends()[..., [2, 3, 0, 1, 4, 5]]}, "inside out"),
    "end to end, in the unit square": ({"head": "end_to_end", "out": ends(40, 1)}, "--head-parameter pixels=0"),
    "scores without a sigmoid": ({"head": "yolov8", "out": candidates() * -4}, "export the model with its sigmoid"),
    "candidates in the unit square": ({"head": "yolov8", "out": candidates(scale=1)}, "--head-parameter pixels=0"),
    "boxes in pixels": (
        {"head": "boxes_scores", "boxes": sized(40, 640), "scores": RANDOM.uniform(0, 1, (3, 40))},
        "--head-parameter pixels=1"),
    "boxes that aren't in pixels": (
        {"head": "boxes_scores", "boxes": sized(40, 1), "scores": RANDOM.uniform(0, 1, (3, 40)),
         "parameters": {"pixels": 1}}, "--head-parameter pixels=0"),
    "corners": (
        {"head": "boxes_scores", "boxes": corners(90, 1), "scores": RANDOM.uniform(0, 1, (3, 90))},
        "--head-parameter corners=1"),
    "sizes": (
        {"head": "boxes_scores", "boxes": sized(40, 1) * [1, 1, 0.1, 0.1], "scores": RANDOM.uniform(0, 1, (3, 40)),
         "parameters": {"corners": 1}}, "--head-parameter corners=0"),
    "logits a box": (
        {"head": "boxes_scores", "boxes": sized(40, 1), "scores": RANDOM.normal(0, 3, (3, 40))}, "outside [0, 1]"),
    "classes that are none": (
        {"head": "boxes_scores", "boxes": sized(9, 1), "scores": RANDOM.uniform(0, 1, (3, 9)),
         "labels": RANDOM.uniform(0, 9, (3, 9))}, "aren't whole"),
    "queries in pixels": (
        {"head": "detr", "logits": RANDOM.normal(0, 3, (3, 9, 4)), "pred_boxes": sized(9, 640)}, "outside [0, 1]"),
    "text as logits": ({"head": "db", "out": RANDOM.normal(0, 3, (3, 1, 8, 8))}, "export the model with its sigmoid"),
    "probabilities for classes": ({"head": "class_map", "out": RANDOM.uniform(0, 1, (3, 8, 8))}, "use head foreground"),
    "logits for classes": ({"head": "class_map", "out": RANDOM.normal(0, 3, (3, 8, 8))}, "use head sigmoid"),
    "a sigmoid twice": ({"head": "sigmoid", "out": RANDOM.uniform(0, 1, (3, 8, 8))}, "use head foreground"),
    "logits for probabilities": ({"head": "foreground", "out": RANDOM.normal(0, 3, (3, 8, 8))}, "head sigmoid"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_answers_that_dont_fit(case: str) -> None:
    given, expected = MISFITS[case]
    assert expected in fit(**given)


def test_an_answer_that_is_missing() -> None:
    given = model("softmax", shapes={"out": ("float32", (3,))})
    assert fitting.misfit(given, [{"other": np.zeros((1, 3))}]) == "head softmax doesn't fit: the engine gives no 'out'"
    assert fitting.misfit(given, []) == ""


F, INT = "float32", "int64"
SHAPES: list[tuple[str, dict[str, Any], str]] = [
    ("softmax", {"out": (INT, (1,))}, "Indices are no scores; export the model without its last ArgMax"),
    ("softmax", {"out": (F, (1,))}, "Such outputs are read by probabilities"),
    ("softmax", {"out": (F, (2, 3))}, "head softmax reads one output [classes] of floats"),
    ("yolov8", {"out": (F, (84, 8400)), "proto": (F, (32, 160, 160))}, "Masks of single objects are not supported"),
    ("yolov8", {"out": (F, (8400, 84))}, "Such outputs are read by yolov5"),
    ("yolov5", {"out": (F, (84, 8400))}, "Such outputs are read by yolov8"),
    ("yolov8", {"logits": (F, (9, 4)), "pred_boxes": (F, (9, 4))}, "Such outputs are read by detr"),
    ("yolov8", {"pred_bboxes": (F, (9, 4)), "pred_scores": (F, (9, 80))}, "Such outputs are read by boxes_scores"),
    ("boxes_scores", {"out": (F, (300, 6))}, "Such outputs are read by end_to_end"),
    ("boxes_scores", {"boxes": (F, (9, 4)), "scores": (F, (8,))}, "head boxes_scores reads outputs boxes [n, 4]"),
    ("argmax", {"out": (F, (640, 640, 21))}, "It takes --head-parameter channels_last=1"),
    ("argmax", {"out": (F, (1, 64, 64))}, "sigmoid (logits) or foreground (probabilities)"),
    ("argmax", {"out": (INT, (64, 64))}, "Such outputs are read by class_map"),
    ("sigmoid", {"out": (INT, (64, 64))}, "Such outputs are read by class_map"),
    ("class_map", {"out": (F, (21, 64, 64))}, "Such outputs are read by argmax"),
]


@pytest.mark.parametrize(("head", "shapes", "expected"), SHAPES)
def test_shapes_that_another_head_reads(head: str, shapes: dict[str, Any], expected: str) -> None:
    assert expected in outputs.misfit(model(head, shapes=shapes))


FITTING: list[tuple[str, dict[str, Any], int]] = [
    ("softmax", {"out": (F, (1000, 1, 1))}, 1000),
    ("softmax", {"out": ("float16", (-1,))}, outputs.VARIES),
    ("yolov8", {"out": (F, (84, 10))}, 80),
    ("yolov8", {"out": (F, (-1, -1))}, outputs.VARIES),
    ("yolov5", {"out": (F, (1, 85))}, 80),
    ("end_to_end", {"out": (F, (-1, -1))}, outputs.VARIES),
    ("boxes_scores", {"boxes": (F, (100, 4)), "scores": (F, (-1,))}, outputs.VARIES),
    ("boxes_scores", {"boxes": (F, (9, 4)), "scores": (F, (9, 1)), "labels": (INT, (9, 1))}, outputs.VARIES),
    ("boxes_scores", {"boxes": (F, (9, 4)), "scores": (F, (9, 7)), "num_detections": (INT, (1,))}, 7),
    ("argmax", {"out": (F, (21, 80, 80))}, 21),
    ("argmax", {"out": (F, (80, 60, 50))}, 80),  # neither way round as the input: it is believed
    ("class_map", {"out": ("uint8", (64, 64, 1))}, outputs.VARIES),
]


@pytest.mark.parametrize(("head", "shapes", "classes"), FITTING)
def test_shapes_that_fit_and_their_classes(head: str, shapes: dict[str, Any], classes: int) -> None:
    given = model(head, shapes=shapes)
    assert outputs.misfit(given) == ""
    assert outputs.classes(given) == classes


@pytest.mark.parametrize(("labels", "classes"), [(3, 3), (4, 4)])
def test_queries_need_a_label_for_each_class_that_is_one(labels: int, classes: int) -> None:
    shapes = {"logits": (F, (9, 4)), "pred_boxes": (F, (9, 4))}
    given = model("detr", labels, shapes=shapes)
    assert outputs.misfit(given) == ""
    assert outputs.classes(given) == classes


ENDINGS = [
    ("softmax", ["Softmax"], "use head probabilities"),
    ("softmax", ["Sigmoid", "Reshape", "Identity"], "use head probabilities"),
    ("softmax", ["Softmax", "Relu"], ""),
    ("softmax", ["LogSoftmax"], ""),
    ("probabilities", ["Softmax"], ""),
    ("probabilities", ["LogSoftmax", "Flatten"], "use head softmax"),
    ("sigmoid", ["Sigmoid", "Squeeze"], "use head foreground"),
    ("foreground", ["Sigmoid"], ""),
]


@pytest.mark.parametrize(("head", "operators", "expected"), ENDINGS)
def test_the_last_operator_tells(head: str, operators: list[str], expected: str) -> None:
    names = ["picture", *(f"t{number}" for number in range(len(operators) - 1)), "out"]
    nodes = [
        helper.make_node(operator, [one], [other])
        for operator, one, other in zip(operators, names[:-1], names[1:], strict=True)
    ]
    value = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1])
    proto = helper.make_model(helper.make_graph(nodes, "g", [value], [helper.make_empty_tensor_value_info("out")]))
    message = ending.misfit(model(head, shapes={"out": (F, (3,))}), proto)
    assert expected in message
    assert bool(expected) is bool(message)


@pytest.mark.parametrize("task", ["pose", "obb", "segment"])
def test_the_exporters_own_words_tell(task: str) -> None:
    proto = helper.make_model(helper.make_graph([], "g", [], []))
    proto.metadata_props.add(key="task", value=task)
    given = model("yolov8", shapes={"out": (F, (20, 8400))})
    assert "which are not supported" in ending.misfit(given, proto)
    proto.metadata_props[0].value = "detect"
    assert ending.misfit(given, proto) == ""


@pytest.mark.parametrize(("changes", "expected"), [
    ({}, ""),
    ({"max_batch_size": 873}, ""),
    ({"max_batch_size": 874}, "max_batch_size: is 874, and one picture takes 1,228,800 bytes; .* so 873 is the most"),
    ({"max_batch_size": 2**31 - 1}, "max_batch_size: is 2,147,483,647"),
    ({"instance_count": 256}, ""),
    ({"instance_count": 2**31 - 1}, "instance_group.count: is 2,147,483,647 in all; 256 is the most"),
])  # fmt: skip
def test_how_much_a_model_may_ask_for(changes: dict[str, int], expected: str) -> None:
    given = model("softmax", shapes={"out": (F, (3,))}, batching=BatchingSettings(**changes))
    found = ": ".join(excess(given) or ())
    assert re.search(expected, found)
    assert bool(found) is bool(expected)
