"""Detectors without suppression of overlaps, and scores that never leave [0, 1]. Expected values are worked out in
plain Python here, pixel by pixel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shoal.errors import ConfigurationError, Internal
from shoal.modelconfig.model import Resize, Tensor
from shoal.pictures.header import PictureSize
from shoal.v1 import inference_pb2 as pb
from shoal.worker.heads.head import make_head
from support.pictures import config

if TYPE_CHECKING:
    from shoal.worker.heads.head import Head

FRAME = PictureSize(640, 320)
PICTURE = PictureSize(1280, 960)


def head(name: str, shapes: dict[str, tuple[int, ...]], labels: int = 3, **changes: Any) -> Head:
    tensors = tuple(Tensor(output, "float32", shape) for output, shape in shapes.items())
    names = tuple(f"class {number}" for number in range(labels))
    return make_head(config(FRAME.height, FRAME.width, head=name, outputs=tensors, labels=names, **changes))


def found(made: Head, outputs: dict[str, Any], size: PictureSize = PICTURE, **request: Any) -> list[tuple[Any, ...]]:
    """Of the second picture of a batch: index, score and corners in pixels of the picture."""
    batch = {name: np.array([np.zeros_like(value), value], np.float32) for name, value in outputs.items()}
    reply = made.reply(batch, 1, pb.ImageRequest(**request), size)
    assert isinstance(reply, pb.DetectReply)
    return [
        (
            box.index,
            round(box.score, 5),
            *(
                round(float(number), 2)
                for number in (
                    box.x * size.width,
                    box.y * size.height,
                    (box.x + box.width) * size.width,
                    (box.y + box.height) * size.height,
                )
            ),
        )
        for box in reply.boxes
    ]


ROWS = [[64, 32, 128, 96, 0.75, 2], [320, 160, 640, 320, 0.5, 0], [0, 0, 10, 10, 0.125, 1], [0, 0, 0, 0, 0, 0]]


def test_end_to_end_boxes() -> None:
    made = head("end_to_end", {"output0": (4, 6)})
    # Stretched: a pixel of the frame is 2 x 3 pixels of the picture.
    first, second = (2, 0.75, 128.0, 96.0, 256.0, 288.0), (0, 0.5, 640.0, 480.0, 1280.0, 960.0)
    assert found(made, {"output0": ROWS}) == [first, second]
    assert found(made, {"output0": ROWS}, score_threshold=0.1)[2] == (1, 0.125, 0.0, 0.0, 20.0, 30.0)
    normal = head("end_to_end", {"output0": (4, 6)}, head_parameters={"pixels": 0})
    scaled = np.array(ROWS) / [640, 320, 640, 320, 1, 1]
    assert found(normal, {"output0": scaled}) == [first, second]


def test_end_to_end_boxes_in_a_letterbox() -> None:
    made = head("end_to_end", {"output0": (1, 6)}, resize=Resize.LETTERBOX)
    # 1280 x 960 becomes 427 x 320, at the left.
    ((_, _, *corners),) = found(made, {"output0": [[42.7, 32, 213.5, 160, 0.9, 1]]})
    assert corners == pytest.approx([128, 96, 640, 480], abs=0.1)


def test_rows_for_no_box_are_left_out() -> None:
    rows = [[0, 0, 9, 9, 0.9, -1], [-1, -1, -1, -1, -1, -1], [0, 0, 64, 32, 0.8, 0]]
    made = head("end_to_end", {"out": (3, 6)})
    assert found(made, {"out": rows}) == [(0, 0.8, 0.0, 0.0, 128.0, 96.0)]
    assert found(made, {"out": rows}, score_threshold=0) == [(0, 0.8, 0.0, 0.0, 128.0, 96.0)]


def test_end_to_end_boxes_that_overlap_stay_unless_asked() -> None:
    rows = [[0, 0, 64, 32, 0.9, 1], [0, 0, 64, 31, 0.8, 1], [0, 0, 64, 32, 0.7, 2]]
    assert len(found(head("end_to_end", {"out": (3, 6)}), {"out": rows})) == 3
    asked = head("end_to_end", {"out": (3, 6)}, head_parameters={"iou_threshold": 0.5})
    assert [index for index, *_ in found(asked, {"out": rows})] == [1, 2]


LOGITS = [[2.0, -1.0, 0.5, 1.0], [-3.0, 4.0, -3.0, -3.0], [0.0, 0.0, 0.0, 9.0]]
QUERIES = [[0.5, 0.5, 0.25, 0.5], [0.125, 0.25, 0.25, 0.5], [0.5, 0.5, 1.0, 1.0]]
MOST = float(np.finfo(np.float32).max)
CORNERS = [(480.0, 240.0, 800.0, 720.0), (0.0, 0.0, 320.0, 480.0), (0.0, 0.0, 1280.0, 960.0)]
"""Of those queries in a picture of 1280 x 960, to which any frame is stretched."""


def naive_softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("names", [("logits", "pred_boxes"), ("pred_logits", "pred_boxes")])
@pytest.mark.parametrize("told", ["by the labels", "by a parameter"])
def test_queries_with_a_last_class_for_no_object(names: tuple[str, str], told: str) -> None:
    logits, boxes = names
    shapes = {logits: (3, 4), boxes: (3, 4), "last_hidden_state": (3, 256)}
    how: dict[str, Any] = (
        {"labels": 3} if told == "by the labels" else {"labels": 0, "head_parameters": {"no_object": 1}}
    )
    made = head("detr", shapes, **how)
    expected = []
    for values, corners in zip(LOGITS, CORNERS, strict=True):
        *scores, _ = naive_softmax(values)
        if max(scores) >= 0.5:
            expected.append((scores.index(max(scores)), round(max(scores), 5), *corners))
    assert len(expected) == 2
    assert found(made, {logits: LOGITS, boxes: QUERIES}) == sorted(expected, key=lambda row: -row[1])


@pytest.mark.parametrize("how", [{"labels": 4}, {"labels": 3, "head_parameters": {"no_object": 0}}])
def test_queries_with_a_sigmoid_a_class(how: dict[str, Any]) -> None:
    made = head("detr", {"logits": (3, 4), "pred_boxes": (3, 4)}, **how)
    expected = [
        (index, round(1 / (1 + math.exp(-value)), 5), *corners)
        for values, corners in zip(LOGITS, CORNERS, strict=True)
        for index, value in enumerate(values)
        if value >= 0
    ]
    assert sorted(found(made, {"logits": LOGITS, "pred_boxes": QUERIES})) == sorted(expected)


@pytest.mark.parametrize("labels", [0, 2, 5])
def test_queries_that_may_mean_either_are_refused(labels: int) -> None:
    with pytest.raises(ConfigurationError, match=r"reads 4 logits a box.*no_object=1 \(DETR, YOLOS\)"):
        head("detr", {"logits": (3, 4), "pred_boxes": (3, 4)}, labels=labels)


def test_names_of_yolo_nas() -> None:
    shapes = {"graph2_num_predictions": (1,), "graph2_pred_boxes": (2, 4), "graph2_pred_scores": (2,)}
    made = head("boxes_scores", {**shapes, "graph2_pred_classes": (2,)})
    outputs = {
        "graph2_pred_boxes": [[64, 32, 128, 96], [320, 160, 640, 320]],
        "graph2_pred_scores": [0.75, 0.5],
        "graph2_pred_classes": [2, 0],
    }
    assert found(made, outputs) == [(2, 0.75, 128.0, 96.0, 256.0, 288.0), (0, 0.5, 640.0, 480.0, 1280.0, 960.0)]


def test_names_of_yolo_nas_before_suppression() -> None:
    made = head("boxes_scores", {"pred_bboxes": (3, 4), "pred_scores": (3, 3)})
    boxes = [[64, 32, 128, 96], [64, 32, 128, 97], [320, 160, 640, 320]]
    scores = [[0.1, 0, 0.75], [0, 0, 0.7], [0.3, 0, 0]]
    assert found(made, {"pred_bboxes": boxes, "pred_scores": scores}) == [
        (2, 0.75, 128.0, 96.0, 256.0, 288.0),
        (0, 0.3, 640.0, 480.0, 1280.0, 960.0),
    ]


def test_names_of_tensorflow() -> None:
    shapes = {"detection_boxes": (2, 4), "detection_scores": (2,), "detection_classes": (2,)}
    made = head("boxes_scores", {**shapes, "num_detections": (1,), "raw_detection_boxes": (9, 4)})
    outputs = {
        "detection_boxes": [[0.25, 0.5, 0.75, 1.0], [0, 0, 0.1, 0.1]],  # y1, x1, y2, x2
        "detection_scores": [0.875, 0.25],
        "detection_classes": [1, 2],
    }
    assert found(made, outputs) == [(1, 0.875, 640.0, 240.0, 1280.0, 720.0)]


def test_boxes_of_candidates_in_the_unit_square() -> None:
    made = head("yolov8", {"out": (7, 1)}, head_parameters={"pixels": 0})
    assert found(made, {"out": [[0.5], [0.5], [0.25], [0.5], [0], [0.9], [0]]}) == [(1, 0.9, *CORNERS[0])]


SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "end_to_end": {"out": (1, 6)},
    "yolov5": {"out": (1, 8)},
    "yolov8": {"out": (7, 1)},
    "boxes_scores": {"boxes": (1, 4), "scores": (1,)},
}


def scored(name: str, score: float) -> dict[str, Any]:
    return {
        "end_to_end": {"out": [[0, 0, 9, 9, score, 1]]},
        "yolov5": {"out": [[9, 9, 9, 9, score, 1, 0, 0]]},
        "yolov8": {"out": [[9], [9], [9], [9], [score], [0], [0]]},
        "boxes_scores": {"boxes": [[0, 0, 1, 1]], "scores": [score]},
    }[name]


@pytest.mark.parametrize("name", SHAPES)
@given(st.floats(width=32))
def test_scores_outside_0_and_1_never_leave(name: str, score: float) -> None:
    made = head(name, SHAPES[name])
    try:
        boxes = found(made, scored(name, score), score_threshold=0.1)
    except Internal:
        assert not -0.006 < score < 1.005
    else:
        assert all(0.1 <= box[1] <= 1 for box in boxes)
        assert len(boxes) == (score >= np.float32(0.1))


@pytest.mark.parametrize("no_object", [0, 1])
@example([0, 0, MOST, -MOST])  # their difference is no number of their type
@given(st.lists(st.floats(width=32), min_size=4, max_size=4))
def test_logits_of_any_kind_give_scores_or_nothing(no_object: int, logits: list[float]) -> None:
    made = head("detr", {"logits": (1, 4), "pred_boxes": (1, 4)}, head_parameters={"no_object": no_object})
    try:
        boxes = found(made, {"logits": [logits], "pred_boxes": QUERIES[:1]})
    except Internal:
        assert math.inf in logits or any(map(math.isnan, logits)) or all(map(math.isinf, logits))
    else:
        assert all(0.5 <= box[1] <= 1 for box in boxes)


@given(st.lists(st.floats(width=32), min_size=2, max_size=6), st.integers(1, 6))
def test_probabilities_outside_0_and_1_never_leave(values: list[float], top_k: int) -> None:
    made = make_head(config(head="probabilities", outputs=(Tensor("out", "float32", (len(values),)),)))
    try:
        reply = made.reply({"out": np.array([values], np.float32)}, 0, pb.ImageRequest(top_k=top_k), PICTURE)
    except Internal:
        assert any(not -0.006 < value < 1.005 for value in values)
    else:
        assert isinstance(reply, pb.ClassifyReply)
        assert all(0 <= each.probability <= 1 for each in reply.classes)
        assert all(-0.0051 <= value <= 1.0051 for value in values)


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (1, 1, 3), (1, 3)])
def test_dimensions_of_1_around_the_classes_say_nothing(shape: tuple[int, ...]) -> None:
    made = make_head(config(head="softmax", outputs=(Tensor("out", "float32", shape),)))
    values = np.array([1.0, 3.0, 2.0], np.float32).reshape(1, *shape)
    reply = made.reply({"out": values}, 0, pb.ImageRequest(), PICTURE)
    assert isinstance(reply, pb.ClassifyReply)
    expected = sorted(enumerate(naive_softmax([1.0, 3.0, 2.0])), key=lambda pair: -pair[1])
    assert [(each.index, each.probability) for each in reply.classes] == [
        (index, pytest.approx(value, rel=1e-5)) for index, value in expected
    ]


@pytest.mark.parametrize(("name", "values"), [("foreground", 1.5), ("foreground", -0.5), ("class_map", 0.5)])
def test_maps_that_are_no_such_thing_are_a_fault_of_ours(name: str, values: float) -> None:
    made = make_head(config(head=name, outputs=(Tensor("out", "float32", (4, 4)),)))
    with pytest.raises(Internal, match="answered a"):
        made.reply({"out": np.full((1, 4, 4), values, np.float32)}, 0, pb.ImageRequest(), PICTURE)
