from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.errors import ConfigurationError, Internal, InvalidRequest
from shoal.modelconfig.model import Resize, Tensor
from shoal.modelstore.fitting import SLACK
from shoal.pictures.geometry import place
from shoal.pictures.header import PictureSize
from shoal.v1.inference_pb2 import ImageRequest
from shoal.worker.heads.head import make_head
from support.pictures import config

if TYPE_CHECKING:
    from shoal.v1.inference_pb2 import Box
    from shoal.worker.heads.head import Head

SIZE = PictureSize(64, 64)


def head(name: str, outputs: tuple[str, ...] = ("out",), **changes: Any) -> Head:
    shapes = {"boxes": (-1, 4), "out": (1, -1, -1) if name == "db" else (-1,)}
    tensors = tuple(Tensor(output, "float32", shapes.get(output, (-1,))) for output in outputs)
    return make_head(config(head=name, outputs=tensors, **changes))


def classify(values: Any, name: str = "softmax", top_k: int = 0, **changes: Any) -> list[tuple[int, str, float]]:
    outputs = {"out": np.array([values, values], np.float32)}
    reply = head(name, **changes).reply(outputs, 1, ImageRequest(top_k=top_k), SIZE)
    return [(found.index, found.label, found.probability) for found in reply.classes]


def rectangle(box: Box) -> tuple[float, float, float, float]:
    return (box.x, box.y, box.width, box.height)


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40), st.integers(0, 50))
def test_softmax_is_the_naive_one(logits: list[float], top_k: int) -> None:
    found = classify(logits, top_k=top_k)
    naive = [math.exp(value - max(logits)) for value in logits]
    assert len(found) == min(top_k or 5, len(logits))
    assert [p for _, _, p in found] == sorted((p for _, _, p in found), reverse=True)
    assert len({index for index, _, _ in found}) == len(found)
    for index, _, probability in found:
        assert probability == pytest.approx(naive[index] / sum(naive), rel=1e-3, abs=1e-6)
    assert found[0][2] == pytest.approx(max(naive) / sum(naive), rel=1e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_logits_as_far_apart_as_their_type_allows_have_shares(dtype: type[np.floating]) -> None:
    most = np.finfo(dtype).max
    outputs = {"out": np.array([[-most, most, 0, most]], dtype)}
    (reply,) = head("softmax").replies(outputs, [ImageRequest(top_k=4)], [SIZE])
    assert not isinstance(reply, Exception)
    assert sorted((each.index, each.probability) for each in reply.classes) == [(0, 0), (1, 0.5), (2, 0), (3, 0.5)]


FEW = 10
"""Of so many at most, equal ones are in the order of their classes."""


def test_classes_that_cannot_be_come_last_and_once() -> None:
    """-inf is what some graphs write for a class that is masked; here fewer are left than asked for."""
    values = np.full(20, -np.inf, np.float32)
    values[[7, 3]] = 1.0, 2.0
    (reply,) = head("softmax").replies({"out": values[None]}, [ImageRequest(top_k=5)], [SIZE])
    assert not isinstance(reply, Exception)
    assert [found.index for found in reply.classes[:2]] == [3, 7]
    assert len({found.index for found in reply.classes}) == 5
    assert [found.probability for found in reply.classes[2:]] == [0.0] * 3


def by_itself(values: Any, count: int, *, logits: bool) -> list[tuple[int, float]] | None:
    """What the head answers for a picture's values, computed for that picture alone; None: it refuses them."""
    order = values.argsort() if count >= len(values) else values.argpartition(-count)[-count:]
    best = (order if count >= len(values) else order[values[order].argsort()])[::-1]
    if count <= FEW and count < len(values) and np.isfinite(values).all():
        best = (-values).argsort(kind="stable")[:count]
    if not np.isfinite(values[best[0]]) or (not logits and not -SLACK <= values.min() <= values.max() <= 1 + SLACK):
        return None
    if not logits:
        return list(zip(best.tolist(), values[best].clip(0, 1).tolist(), strict=True))
    exponentials = np.exp(values - values[best[0]], dtype=np.float32)
    return list(zip(best.tolist(), (exponentials[best] / exponentials.sum()).tolist(), strict=True))


@pytest.mark.parametrize("name", ["softmax", "probabilities"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 1100),
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 2, 5, FEW, FEW + 1, 2000]), st.sampled_from(["", "ties", "nan", "inf", "above"])
        ),
        min_size=1,
        max_size=9,
    ),
)
@settings(max_examples=30)
def test_a_batch_is_answered_as_each_picture_by_itself_to_the_last_bit(
    name: str, dtype: str, seed: int, classes: int, rows: list[tuple[int, str]]
) -> None:
    logits = name == "softmax"
    drawn = np.random.default_rng(seed)
    values = (drawn.normal(0, 9, (len(rows), classes)) if logits else drawn.random((len(rows), classes))).astype(dtype)
    for row, (_, kind) in zip(values, rows, strict=True):
        row[drawn.integers(classes)] = {"nan": np.nan, "inf": np.inf, "above": 1.5}.get(kind, row[0])
        if kind == "ties":
            row[:] = row.round()
    made = head(name)
    requests = [ImageRequest(top_k=top_k) for top_k, _ in rows]
    batch = made.replies({"out": values[:, None, :]}, requests, [SIZE] * len(rows))
    for row, request, reply in zip(values, requests, batch, strict=True):
        expected = by_itself(row, request.top_k or 5, logits=logits)
        if expected is None:
            assert isinstance(reply, Internal)
            with pytest.raises(Internal, match=re.escape(str(reply))):
                made.reply({"out": row[None]}, 0, request, SIZE)
        else:
            assert not isinstance(reply, Exception)
            assert [found.index for found in reply.classes] == [index for index, _ in expected]
            assert [found.probability for found in reply.classes] == np.float32([p for _, p in expected]).tolist()
            assert made.reply({"out": row[None]}, 0, request, SIZE) == reply


def test_of_a_batch_that_is_read_one_by_one_the_bad_picture_alone_fails() -> None:
    made = head("boxes_scores", ("boxes", "scores"))
    outputs = {"boxes": np.zeros((3, 2, 4), np.float32), "scores": np.float32([[0.9, 0], [np.nan, 0], [0, 0]])}
    good, bad, empty = made.replies(outputs, [ImageRequest()] * 3, [SIZE] * 3)
    assert isinstance(bad, Internal)
    assert good == made.reply(outputs, 0, ImageRequest(), SIZE)
    assert empty == made.reply(outputs, 2, ImageRequest(), SIZE)


def test_probabilities_are_taken_as_they_are() -> None:
    found = classify([0.1, 0.7, 0.2], "probabilities", top_k=2)
    assert [(index, round(p, 6)) for index, _, p in found] == [(1, 0.7), (2, 0.2)]


def test_labels_may_be_missing() -> None:
    assert [label for _, label, _ in classify([3, 2, 1], labels=("cat", "dog"))] == ["cat", "dog", ""]
    assert [label for _, label, _ in classify([3, 2, 1])] == ["", "", ""]


def test_outputs_with_more_dimensions_are_flattened() -> None:
    assert classify([[[1]], [[5]]])[0][0] == 1


def test_float16_does_not_overflow() -> None:
    outputs = {"out": np.array([np.full(1000, 10), np.zeros(1000)], np.float16)}
    reply = head("softmax").reply(outputs, 0, ImageRequest(top_k=1), SIZE)
    assert reply.classes[0].probability == pytest.approx(0.001, rel=1e-2)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_senseless_outputs_are_a_fault_of_ours(bad: float) -> None:
    with pytest.raises(Internal, match="NaN or infinity"):
        classify([1, bad, 2])


def detector(**changes: Any) -> Head:
    return head("boxes_scores", ("boxes", "scores"), labels=("thing",), **changes)


def detect(
    boxes: Any, scores: Any, size: PictureSize = SIZE, threshold: float | None = None, **changes: Any
) -> list[Box]:
    outputs = {"boxes": np.array([boxes], np.float32), "scores": np.array([scores], np.float32)}
    return list(detector(**changes).reply(outputs, 0, ImageRequest(score_threshold=threshold), size).boxes)


def test_boxes_best_first_above_the_threshold() -> None:
    boxes = [[0, 0, 0.5, 0.5], [0.5, 0.5, 0.25, 0.25], [0, 0, 1, 1]]
    found = detect(boxes, [0.6, 0.9, 0.3])
    assert [rectangle(box) for box in found] == [(0.5, 0.5, 0.25, 0.25), (0, 0, 0.5, 0.5)]
    assert [box.label for box in found] == ["thing", "thing"]
    assert len(detect(boxes, [0.6, 0.9, 0.3], threshold=0)) == 3
    assert len(detect(boxes, [0.6, 0.9, 0.3], head_parameters={"score_threshold": 0.7})) == 1


def test_boxes_are_clipped_and_those_beside_the_picture_left_out() -> None:
    found = detect([[-0.5, 0.5, 1, 1], [1.2, 0, 0.5, 0.5]], [0.9, 0.9])
    assert [rectangle(box) for box in found] == [(0, 0.5, 0.5, 0.5)]


def test_boxes_undo_the_letterbox() -> None:
    # 200 x 100 fills the upper half of a square input.
    found = detect(
        [[0, 0, 1, 0.5], [0.5, 0.25, 0.25, 0.125]], [0.9, 0.8], PictureSize(200, 100), resize=Resize.LETTERBOX
    )
    assert [rectangle(box) for box in found] == [(0, 0, 1, 1), (0.5, 0.5, 0.25, 0.25)]


def test_boxes_undo_the_crop() -> None:
    # 200 x 100: the crop shows the middle square, 100 x 100.
    found = detect([[0, 0, 1, 1]], [0.9], PictureSize(200, 100), resize=Resize.CROP, resize_shorter_side=32)
    assert [rectangle(box) for box in found] == [(0.25, 0, 0.5, 1)]


def test_overlaps_keep_the_better_one_where_asked() -> None:
    boxes = [[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.45], [0.5, 0.5, 0.5, 0.5]]
    assert len(detect(boxes, [0.9, 0.8, 0.7])) == 3
    found = detect(boxes, [0.8, 0.9, 0.7], head_parameters={"iou_threshold": 0.5})
    assert [box.score for box in found] == pytest.approx([0.9, 0.7])


def test_classes_have_boxes_of_their_own() -> None:
    made = head(
        "boxes_scores", ("boxes", "scores", "classes"), labels=("a", "b"), head_parameters={"iou_threshold": 0.5}
    )
    outputs = {
        "boxes": np.array([[[0, 0, 1, 1]] * 3], np.float32),
        "scores": np.array([[0.9, 0.8, 0.7]], np.float32),
        "classes": np.array([[0, 1, 7]], np.float32),
    }
    found = made.reply(outputs, 0, ImageRequest(), SIZE).boxes
    assert [(box.index, box.label) for box in found] == [(0, "a"), (1, "b"), (7, "")]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan, math.inf])
def test_senseless_thresholds_are_refused(threshold: float) -> None:
    with pytest.raises(InvalidRequest, match=r"score_threshold .* is not in \[0, 1\]"):
        detector().check(ImageRequest(score_threshold=threshold))


def test_good_options_pass() -> None:
    for threshold in (None, 0, 0.5, 1):
        detector().check(ImageRequest(score_threshold=threshold))
    head("softmax").check(ImageRequest(top_k=2**32 - 1))


def test_senseless_boxes_are_a_fault_of_ours() -> None:
    with pytest.raises(Internal):
        detect([[0, 0, 1, 1]], [math.nan])
    with pytest.raises(Internal):
        detect([[0, math.inf, 1, 1]], [0.9])


@given(
    st.sampled_from(list(Resize)), st.integers(1, 3000), st.integers(1, 3000), st.integers(8, 300), st.integers(8, 300)
)
def test_placement_maps_the_seen_window_to_the_whole_content(
    rule: Resize, width: int, height: int, frame_width: int, frame_height: int
) -> None:
    settings = config(frame_height, frame_width, resize=rule, resize_shorter_side=frame_height)
    placed = place(settings, PictureSize(width, height))
    content = [0, 0, placed.content.width / frame_width, placed.content.height / frame_height]
    x, y, w, h = placed.to_picture(np.array([content]))[0]
    assert (w * width, h * height) == pytest.approx(placed.window, rel=1e-6)
    assert (x * width, y * height) == pytest.approx(placed.corner, rel=1e-6, abs=1e-6)
    # The crop is in the middle, as far as whole pixels of the resized picture allow.
    assert abs(x + w / 2 - 0.5) * placed.resized.width <= 0.5 + 1e-6
    assert abs(y + h / 2 - 0.5) * placed.resized.height <= 0.5 + 1e-6


Rectangle = tuple[tuple[float, float], tuple[float, float], float]
MAP = PictureSize(320, 320)


def text_map(*rectangles: Rectangle) -> np.ndarray[Any, Any]:
    """A map with rotated rectangles of text: centre, sides, angle."""
    drawn = np.zeros((MAP.height, MAP.width), np.float32)
    for rect in rectangles:
        cv2.fillPoly(drawn, [cv2.boxPoints(rect).astype(np.int32)], 0.9)
    return drawn[None, None]


def lines(drawn: np.ndarray[Any, Any], size: PictureSize = MAP, threshold: float | None = None) -> list[Box]:
    made = head("db", height=320, width=320, resize=Resize.LETTERBOX, labels=("text",))
    assert made.slow
    return list(made.reply({"out": drawn}, 0, ImageRequest(score_threshold=threshold), size).boxes)


def test_text_lines_grow_back_by_the_unclip_distance() -> None:
    (box,) = lines(text_map(((160, 100), (100, 20), 0)))
    distance = 100 * 20 * 1.5 / (2 * 120)
    expected = np.array([110 - distance, 90 - distance, 100 + 2 * distance, 20 + 2 * distance]) / 320
    np.testing.assert_allclose(rectangle(box), expected, atol=1.5 / 320)
    assert box.label == "text"
    assert box.score == pytest.approx(0.9, abs=0.02)


def test_text_boxes_are_in_the_picture_not_in_the_letterbox() -> None:
    # 640 x 320 fills the upper half of the input: y doubles.
    (box,) = lines(text_map(((160, 80), (100, 20), 0), ((160, 240), (100, 20), 0)), PictureSize(640, 320))
    assert box.y + box.height / 2 == pytest.approx(0.5, abs=0.01)
    assert box.x + box.width / 2 == pytest.approx(0.5, abs=0.01)


def test_slanted_text_gets_an_upright_box() -> None:
    (box,) = lines(text_map(((160, 160), (100, 20), 45)))
    assert box.width == pytest.approx(box.height, abs=0.01)
    assert 0.3 < box.width < 0.5


def test_specks_and_faint_text_are_left_out() -> None:
    assert lines(text_map(((50, 50), (2, 1), 0))) == []
    faint = text_map(((160, 100), (100, 20), 0)) / 2
    assert lines(faint) == []
    assert len(lines(faint, threshold=0.4)) == 1
    assert lines(text_map()) == []


def test_a_broken_text_map_is_a_fault_of_ours() -> None:
    with pytest.raises(Internal):
        lines(np.full((1, 1, 320, 320), np.nan, np.float32))


@pytest.mark.parametrize(("name", "outputs", "message"), [
    ("soft", ("out",), "no head 'soft'; did you mean 'softmax'"),
    ("softmax", ("a", "b"), "softmax reads one output .*; here: a float32 .*, b float32"),
    ("db", ("a", "b"), "db reads one output .*; here: a float32 .*, b float32"),
    ("boxes_scores", ("boxes", "other"), "reads outputs boxes .* and scores .*; here: boxes float32 .*, other float32"),
])  # fmt: skip
def test_heads_that_do_not_fit_the_model(name: str, outputs: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        head(name, outputs)
