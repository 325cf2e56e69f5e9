from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shoal.errors import ConfigurationError, Internal
from shoal.modelconfig.model import Resize, Tensor
from shoal.pictures.decode import Decoder
from shoal.pictures.header import PictureSize
from shoal.v1 import inference_pb2 as pb
from shoal.worker.heads.detection import MAX_BOXES
from shoal.worker.heads.head import make_head
from support.pictures import config, encode, stored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.worker.heads.head import Head

FRAME = PictureSize(640, 320)
LABELS = ("cat", "dog", "fish")
YOLOS = ("yolov5", "yolov8")


def head(name: str, *outputs: tuple[str, tuple[int, ...]], frame: PictureSize = FRAME, **changes: Any) -> Head:
    tensors = tuple(Tensor(output, "float32", shape) for output, shape in outputs)
    return make_head(
        config(frame.height, frame.width, **({"head": name, "outputs": tensors, "labels": LABELS} | changes))
    )


def yolo(name: str, count: int = -1, frame: PictureSize = FRAME, **changes: Any) -> Head:
    return head(name, ("out", (count, 8) if name == "yolov5" else (7, count)), frame=frame, **changes)


def candidates(name: str, rows: Any) -> dict[str, NDArray[np.float32]]:
    """The output for rows of centre x, centre y, width, height and three scores; the second of a batch."""
    values = np.array(rows, np.float32)
    if name == "yolov5":
        # The objectness is 0.8: each probability is that much more.
        values = np.concatenate([values[:, :4], np.full((len(values), 1), 0.8), values[:, 4:] / 0.8], axis=1)
    else:
        values = values.T
    return {"out": np.array([np.zeros_like(values), values], np.float32)}


def boxes_of(made: Head, outputs: dict[str, Any], size: PictureSize = FRAME, **request: Any) -> list[pb.Box]:
    reply = made.reply(outputs, 1, pb.ImageRequest(**request), size)
    assert isinstance(reply, pb.DetectReply)
    return list(reply.boxes)


def corners(box: pb.Box, size: PictureSize = FRAME) -> tuple[float, ...]:
    return (
        box.x * size.width,
        box.y * size.height,
        (box.x + box.width) * size.width,
        (box.y + box.height) * size.height,
    )


@pytest.mark.parametrize("name", YOLOS)
def test_candidates_become_boxes(name: str) -> None:
    rows = [[100, 60, 40, 20, 0.1, 0.6, 0.2], [300, 200, 100, 50, 0.7, 0, 0.1], [500, 90, 40, 40, 0.2, 0.2, 0.2]]
    found = boxes_of(yolo(name), candidates(name, rows))
    assert [(box.index, box.label) for box in found] == [(0, "cat"), (1, "dog")]
    assert [box.score for box in found] == pytest.approx([0.7, 0.6])
    assert corners(found[0]) == pytest.approx((250, 175, 350, 225), abs=1e-3)
    assert corners(found[1]) == pytest.approx((80, 50, 120, 70), abs=1e-3)
    assert len(boxes_of(yolo(name), candidates(name, rows), score_threshold=0.1)) == 3
    assert len(boxes_of(yolo(name, head_parameters={"score_threshold": 0.65}), candidates(name, rows))) == 1


@pytest.mark.parametrize("name", YOLOS)
def test_overlaps_are_left_out_within_a_class(name: str) -> None:
    rows = [
        [100, 60, 40, 20, 0.6, 0, 0],
        [101, 60, 40, 20, 0.9, 0, 0],
        [101, 60, 40, 20, 0, 0.5, 0],
        [400, 60, 40, 20, 0.7, 0, 0],
    ]
    found = boxes_of(yolo(name), candidates(name, rows))
    assert [(box.index, round(box.score, 3)) for box in found] == [(0, 0.9), (0, 0.7), (1, 0.5)]
    all_of_them = yolo(name, head_parameters={"iou_threshold": 1.0})
    assert len(boxes_of(all_of_them, candidates(name, rows))) == 4


def test_without_candidates_there_are_no_boxes() -> None:
    assert boxes_of(yolo("yolov8"), candidates("yolov8", [[9, 9, 9, 9, 0, 0, 0]])) == []


def test_objectness_counts() -> None:
    made = head("yolov5", ("out", (1, 6)), labels=("thing",))
    for objectness, expected in ((0.2, 0), (0.9, 1)):
        row = np.array([[[9, 9, 9, 9, objectness, 0.9]]] * 2, np.float32)
        assert len(boxes_of(made, {"out": row})) == expected


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("rule", list(Resize))
@pytest.mark.parametrize("size", [(128, 64), (64, 128), (130, 70), (200, 200)])
def test_from_the_file_to_the_box(rule: Resize, orientation: int, size: tuple[int, int]) -> None:
    """A white rectangle, found by a model that sees white: its box is where it was drawn, whatever was done to it."""
    width, height = size
    drawn = (width // 2 - 16, height // 2 - 8, width // 2 + 20, height // 2 + 12)  # inside of any crop, off the centre
    picture = Image.new("RGB", size)
    picture.paste((255, 255, 255), drawn)
    file = encode(stored(picture, orientation), "PNG", orientation)
    frame = PictureSize(64, 64)
    made = yolo("yolov8", frame=frame, resize=rule, resize_shorter_side=64)
    settings = config(64, 64, resize=rule, resize_shorter_side=64)
    pixels = np.empty((64, 64, 3), np.uint8)
    seen = Decoder(settings, max_pixels=10**6, max_scans=10).decode(file, pixels)
    assert seen == PictureSize(*size)
    (box,) = boxes_of(made, candidates("yolov8", [[*_weighted_rectangle(pixels), 0.9, 0, 0]]), seen)
    scale = max(size) / 64 if rule is Resize.LETTERBOX else min(size) / 64 if rule is Resize.CROP else 1
    exact = 0.02 if 64 in size else max(1.0, scale)  # else the crop and the resize fall between pixels
    assert corners(box, PictureSize(*size)) == pytest.approx(drawn, abs=exact)


def _weighted_rectangle(pixels: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """Centre x, centre y, width, height of the bright part; a grey edge counts by its brightness, of 256."""
    bright = pixels[..., 0].astype(np.float64) / 255
    middle_row, middle_column = bright.max(axis=0), bright.max(axis=1)
    (x, width), (y, height) = (
        (float((profile * (np.arange(len(profile)) + 0.5)).sum() / profile.sum()), float(profile.sum()))
        for profile in (middle_row, middle_column)
    )
    return x, y, width, height


def test_a_letterbox_is_undone_exactly() -> None:
    # 1000 x 500 fills 640 x 320 of a 640 x 640 frame.
    frame = PictureSize(640, 640)
    made = yolo("yolov8", frame=frame, resize=Resize.LETTERBOX)
    (box,) = boxes_of(made, candidates("yolov8", [[320, 160, 64, 32, 0.9, 0, 0]]), PictureSize(1000, 500))
    assert corners(box, PictureSize(1000, 500)) == pytest.approx((450, 225, 550, 275), abs=1e-3)


@pytest.mark.parametrize(("name", "shapes", "found"), [
    ("yolov5", [(10, 5)], r"one output \[n, 5 \+ classes\] of floats; here: out0 float32 \[10, 5\]"),
    ("yolov8", [(4, 10)], r"one output \[4 \+ classes, n\] of floats; here: out0 float32 \[4, 10\]"),
    ("yolov8", [(80,)], r"out0 float32 \[80\]"),
    ("yolov8", [(84, 10), (32, 8, 8)], "out1"),
])  # fmt: skip
def test_yolo_heads_that_do_not_fit(name: str, shapes: list[tuple[int, ...]], found: str) -> None:
    with pytest.raises(ConfigurationError, match=found):
        head(name, *((f"out{number}", shape) for number, shape in enumerate(shapes)))


@pytest.mark.parametrize("name", YOLOS)
@pytest.mark.parametrize("field", [0, 2, 4])
def test_senseless_candidates_are_a_fault_of_ours(name: str, field: int) -> None:
    row = [9, 9, 9, 9, 0.9, 0.9, 0.9]
    row[field] = math.nan
    with pytest.raises(Internal, match="NaN or infinity"):
        boxes_of(yolo(name), candidates(name, [row]))


def detector(*outputs: tuple[str, tuple[int, ...]], **parameters: float) -> Head:
    return head("boxes_scores", *outputs, head_parameters=parameters)


def test_boxes_as_corners_in_pixels() -> None:
    made = detector(("boxes", (2, 4)), ("scores", (2,)), ("labels", (2,)), corners=1, pixels=1)
    outputs = {
        "boxes": np.array([[[64, 32, 320, 160], [0, 0, 640, 320]]] * 2, np.float32),
        "scores": np.array([[0.9, 0.8]] * 2, np.float32),
        "labels": np.array([[2, 0]] * 2, np.int64),
    }
    found = boxes_of(made, outputs)
    assert [box.label for box in found] == ["fish", "cat"]
    assert corners(found[0]) == pytest.approx((64, 32, 320, 160), abs=1e-3)
    assert corners(found[1]) == pytest.approx((0, 0, 640, 320), abs=1e-3)


def test_scores_by_class_as_ssd_answers_them() -> None:
    made = detector(("boxes", (2, 4)), ("scores", (2, 3)), corners=1, background=1, iou_threshold=0.5)
    outputs = {
        "boxes": np.array([[[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.49]]] * 2, np.float32),
        "scores": np.array([[[0.9, 0.6, 0.55], [0.1, 0.8, 0.1]]] * 2, np.float32),
    }
    found = boxes_of(made, outputs)
    # Background isn't there; the second box suppresses the first's 1, and not its 2.
    assert [(box.index, round(box.score, 3)) for box in found] == [(1, 0.8), (2, 0.55)]


@given(
    st.integers(0, 30).flatmap(
        lambda count: st.tuples(
            st.lists(st.tuples(*[st.integers(-20, 60)] * 2, *[st.integers(1, 40)] * 2), min_size=count, max_size=count),
            st.lists(st.sampled_from([0, 1, 2, 10**9]), min_size=count, max_size=count),
            st.lists(st.integers(0, 5), min_size=count, max_size=count),
        )
    ),
    st.sampled_from([0.25, 0.5, 0.75]),
)
def test_suppression_is_the_naive_one(made: tuple[list[Any], list[int], list[int]], iou_threshold: float) -> None:
    boxes, classes, scores = made
    size = PictureSize(64, 64)  # so that nothing is rounded: an overlap may be just the threshold
    outputs = {
        "boxes": np.array([boxes] * 2, np.float32).reshape(2, -1, 4),
        "scores": np.array([scores] * 2, np.float32) / 8,
        "classes": np.array([classes] * 2, np.int64),
    }
    tensors = [("boxes", (-1, 4)), ("scores", (-1,)), ("classes", (-1,))]
    options = {"pixels": 1.0, "score_threshold": 0.0, "iou_threshold": iou_threshold}
    found = boxes_of(head("boxes_scores", *tensors, frame=size, head_parameters=options), outputs, size)
    expected = [index for index in _naive(boxes, classes, scores, iou_threshold) if _shows(boxes[index])]
    assert [(box.index, box.score * 8) for box in found] == [(classes[index], scores[index]) for index in expected]
    for box, index in zip(found, expected, strict=True):
        x, y, width, height = boxes[index]
        assert corners(box, size) == (max(x, 0), max(y, 0), min(x + width, 64), min(y + height, 64))


def _shows(box: tuple[int, ...]) -> bool:
    return box[0] + box[2] > 0 and box[1] + box[3] > 0


def _naive(boxes: list[Any], classes: list[int], scores: list[int], iou_threshold: float) -> list[int]:
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda index: -scores[index]):
        same = [other for other in kept if classes[other] == classes[index]]
        if all(_iou(boxes[index], boxes[other]) <= iou_threshold for other in same):
            kept.append(index)
    return kept


def _iou(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def test_what_a_model_pads_its_boxes_with_is_left_out() -> None:
    made = detector(("boxes", (2, 4)), ("scores", (2,)), ("classes", (2,)))
    outputs = {
        "boxes": np.array([[[0, 0, 1, 1]] * 2] * 2, np.float32),
        "scores": np.array([[0.9, 0.8]] * 2, np.float32),
        "classes": np.array([[-1, 1]] * 2, np.int64),
    }
    assert [box.index for box in boxes_of(made, outputs)] == [1]


def test_only_the_best_are_compared() -> None:
    count = MAX_BOXES + 500
    rows = [[320, 160, 10, 10, 0.3, 0, 0]] * 500
    rows += [[number % 64 * 10 + 5, number // 64 * 10 + 5, 4, 4, 0.9, 0, 0] for number in range(MAX_BOXES)]
    found = boxes_of(yolo("yolov8", count), candidates("yolov8", rows))
    assert len(found) == MAX_BOXES
    assert {round(box.score, 3) for box in found} == {0.9}
