from __future__ import annotations

import io
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shoal.errors import ConfigurationError, Internal, InvalidRequest
from shoal.modelconfig.model import Resize, Tensor
from shoal.pictures import mask
from shoal.pictures.decode import Decoder
from shoal.pictures.geometry import place
from shoal.pictures.header import PictureSize
from shoal.v1 import inference_pb2 as pb
from shoal.worker.heads import mask_reply as mask_module
from shoal.worker.heads.head import make_head
from support.pictures import config, encode, stored

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.v1.inference_pb2 import SegmentReply
    from shoal.worker.heads.head import Head

SIZE = PictureSize(8, 8)
FORMS = list(pb.MaskForm.values())


def head(name: str, shape: tuple[int, ...], side: int = 8, **changes: Any) -> Head:
    given = {"head": name, "outputs": (Tensor("out", "float32", shape),), "labels": ("a", "b", "c")}
    return make_head(config(side, side, **(given | changes)))


def segment(made: Head, values: Any, size: PictureSize = SIZE, dtype: str = "float32", **request: Any) -> SegmentReply:
    outputs = {"out": np.array([values, values], dtype)}
    reply = made.reply(outputs, 1, pb.ImageRequest(**request), size)
    assert isinstance(reply, pb.SegmentReply)
    return reply


def decoded(reply: SegmentReply) -> NDArray[np.integer]:
    """``(height, width)``, whatever the form."""
    size = reply.width, reply.height
    if reply.mask_png:
        indices = mask.decode_png(reply.mask_png).indices
    elif reply.class_map:
        indices = reply.class_map
    else:
        indices = mask.from_runs(size, reply.class_bytes, [(one.index, one.counts) for one in reply.regions]).indices
    return np.frombuffer(indices, f"<u{reply.class_bytes}").reshape(size[::-1])


def scores_of(classes: Any, count: int = 3) -> NDArray[np.float32]:
    """``(count, h, w)``: the right class leads by one."""
    return np.moveaxis(np.eye(count, dtype=np.float32)[np.array(classes)], -1, 0)


ROWS = np.array([[0, 0, 1, 1], [0, 2, 2, 1], [2, 2, 2, 2], [0, 0, 0, 1]])


@pytest.mark.parametrize("form", FORMS)
def test_the_best_class_of_each_cell(form: int) -> None:
    reply = segment(head("argmax", (3, 4, 4)), scores_of(ROWS), mask_form=form)
    assert (decoded(reply) == ROWS).all()
    assert (reply.width, reply.height, reply.class_bytes) == (4, 4, 1)
    assert list(reply.labels) == ["a", "b", "c"]
    assert [(one.index, one.label, one.pixels) for one in reply.regions] == [(0, "a", 6), (2, "c", 6), (1, "b", 4)]
    assert bool(reply.mask_png) == (form == pb.MASK_FORM_PNG)
    assert bool(reply.class_map) == (form == pb.MASK_FORM_CLASS_MAP)
    assert any(one.counts for one in reply.regions) == (form == pb.MASK_FORM_RUNS)


def test_classes_may_be_the_last_dimension() -> None:
    made = head("argmax", (4, 4, 3), head_parameters={"channels_last": 1.0})
    assert (decoded(segment(made, np.moveaxis(scores_of(ROWS), 0, -1))) == ROWS).all()


def test_the_runs_are_cocos() -> None:
    found = {one.index: list(one.counts) for one in segment(head("class_map", (4, 4)), ROWS, mask_form=1).regions}
    # Down the columns: 0 0 2 0, 0 2 2 0, 1 2 2 0, 1 1 2 1.
    assert found == {0: [0, 2, 1, 2, 2, 1, 3, 1, 4], 1: [8, 1, 3, 2, 1, 1], 2: [2, 1, 2, 2, 2, 2, 3, 1, 1]}


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.sampled_from(FORMS), st.booleans())
def test_any_mask_comes_back(width: int, height: int, seed: int, form: int, wide: bool) -> None:
    classes = np.random.default_rng(seed).integers(0, 1000 if wide else 255, (height, width))
    reply = segment(head("class_map", (height, width)), classes, PictureSize(width, height), "int64", mask_form=form)
    assert (decoded(reply) == classes).all()
    assert {one.index: one.pixels for one in reply.regions} == Counter(classes.ravel().tolist())


@pytest.mark.parametrize(("highest", "class_bytes"), [(254, 1), (255, 2), (65534, 2)])
@pytest.mark.parametrize("form", FORMS)
def test_many_classes_take_two_bytes(highest: int, class_bytes: int, form: int) -> None:
    reply = segment(head("class_map", (1, 2)), [[0, highest]], PictureSize(2, 1), "int64", mask_form=form)
    assert reply.class_bytes == class_bytes
    assert decoded(reply).tolist() == [[0, highest]]
    if form == pb.MASK_FORM_PNG:
        with Image.open(io.BytesIO(reply.mask_png)) as image:
            assert np.asarray(image).tolist() == [[0, highest]]


@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 2), (2, 2, 1)])
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
def test_class_maps_of_any_shape_and_dtype(shape: tuple[int, ...], dtype: str) -> None:
    values = np.array([0, 1, 2, 1]).reshape(shape)
    assert decoded(segment(head("class_map", shape), values, dtype=dtype)).tolist() == [[0, 1], [2, 1]]


@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 2), (2, 2, 1)])
def test_one_class_against_background(shape: tuple[int, ...]) -> None:
    probabilities = np.array([0.1, 0.4, 0.5, 0.9])
    logits = np.log(probabilities / (1 - probabilities))
    for name, values in (("foreground", probabilities), ("sigmoid", logits)):
        made = head(name, shape)
        for threshold, expected in ((None, [0, 0, 1, 1]), (0.3, [0, 1, 1, 1]), (0, [1] * 4), (1, [0] * 4)):
            found = decoded(segment(made, values.reshape(shape), score_threshold=threshold))
            assert found.ravel().tolist() == expected
        strict = head(name, shape, head_parameters={"threshold": 0.7})
        assert decoded(segment(strict, values.reshape(shape))).tolist() == [[0, 0], [0, 1]]


def test_labels_may_be_missing() -> None:
    reply = segment(head("class_map", (1, 2), labels=("a",)), [[0, 1]], PictureSize(2, 1))
    assert [(one.index, one.label) for one in reply.regions] == [(0, "a"), (1, "")]


def test_a_letterbox_is_cut_off() -> None:
    # 8 x 4 fills the upper half of a square input; what the model says of the rest is nobody's business.
    classes = np.zeros((8, 8), int)
    classes[4:] = 2
    classes[:4, 4:] = 1
    reply = segment(head("class_map", (8, 8), resize=Resize.LETTERBOX), classes, PictureSize(8, 4))
    assert decoded(reply).tolist() == [[0] * 4 + [1] * 4] * 4
    assert [one.index for one in reply.regions] == [0, 1]


@pytest.mark.parametrize("form", FORMS)
def test_what_a_crop_leaves_out_is_unseen(form: int) -> None:
    made = head("class_map", (8, 8), resize=Resize.CROP, resize_shorter_side=8)
    reply = segment(made, np.ones((8, 8), int), PictureSize(16, 8), mask_form=form)
    assert decoded(reply).tolist() == [[255] * 4 + [1] * 8 + [255] * 4] * 8
    assert [(one.index, one.pixels) for one in reply.regions] == [(1, 64)]


def test_a_stretched_picture_gets_its_aspect_back() -> None:
    classes = np.arange(64).reshape(8, 8)
    reply = segment(head("class_map", (8, 8)), classes, PictureSize(64, 32))
    assert (decoded(reply) == classes.repeat(2, axis=1)).all()


@pytest.mark.parametrize("rule", list(Resize))
def test_a_mask_may_have_the_pictures_own_size(rule: Resize) -> None:
    made = head("class_map", (4, 4), resize=rule, resize_shorter_side=8)
    reply = segment(made, ROWS, PictureSize(40, 40), mask_size=pb.MASK_SIZE_PICTURE)
    assert (decoded(reply) == ROWS.repeat(10, axis=0).repeat(10, axis=1)).all()
    assert sum(one.pixels for one in reply.regions) == 1600


@given(
    st.sampled_from(list(Resize)),
    st.integers(1, 9000),
    st.integers(1, 9000),
    st.integers(8, 300),
    st.integers(8, 300),
    st.integers(1, 8),
)
def test_masks_have_the_pictures_aspect_and_show_every_cell_that_it_fills(
    rule: Resize, width: int, height: int, frame_width: int, frame_height: int, stride: int
) -> None:
    settings = config(frame_height, frame_width, resize=rule, resize_shorter_side=frame_height)
    placed = place(settings, PictureSize(width, height))
    cells = PictureSize(max(1, frame_width // stride), max(1, frame_height // stride))
    size = placed.mask_size(cells)
    assert 1 <= size.width <= width
    assert 1 <= size.height <= height
    # The aspect, but for a pixel of rounding each way.
    assert abs(size.width * height - size.height * width) <= 2 * max(width, height)
    for axis in (0, 1):
        chosen = placed.cells(axis, cells[axis], size[axis])
        seen = chosen[chosen >= 0]
        assert (np.diff(seen) >= 0).all()
        if rule is not Resize.CROP:
            assert len(seen) == size[axis]
        filled = math.ceil(cells[axis] * placed.content[axis] / placed.frame[axis])
        assert seen.max(initial=0) < filled
        # None is left out where the mask is as fine as the map; half a cell at the end may be.
        if size[axis] < placed.picture[axis] and len(seen) > 1:
            assert np.diff(seen).max() <= 2


COLOURS = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 250]], np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("rule", list(Resize))
@pytest.mark.parametrize("size", [(64, 32), (32, 64), (96, 96)])
def test_from_the_file_to_the_mask(rule: Resize, orientation: int, size: tuple[int, int]) -> None:
    """Coloured blocks of 8 pixels, through decoding, a model that knows colours, and back: no pixel is elsewhere."""
    width, height = size
    blocks = np.random.default_rng(orientation).integers(0, 4, (height // 8, width // 8))
    expected = blocks.repeat(8, axis=0).repeat(8, axis=1)
    file = encode(stored(Image.fromarray(COLOURS[expected]), orientation), "PNG", orientation)
    settings = config(
        32, 32, head="argmax", resize=rule, resize_shorter_side=32, outputs=(Tensor("out", "float32", (4, 32, 32)),)
    )
    frame = np.empty((32, 32, 3), np.uint8)
    seen = Decoder(settings, max_pixels=10**6, max_scans=10).decode(file, frame)
    scores = -np.abs(frame[None].astype(np.float32) - COLOURS[:, None, None].astype(np.float32)).sum(axis=-1)
    reply = make_head(settings).reply({"out": scores[None]}, 0, pb.ImageRequest(mask_size=pb.MASK_SIZE_PICTURE), seen)
    assert isinstance(reply, pb.SegmentReply)
    found = decoded(reply)
    if rule is Resize.CROP:
        x, y = (width - min(size)) // 2, (height - min(size)) // 2
        inside = np.zeros(found.shape, bool)
        inside[y : height - y, x : width - x] = True
        assert (found[~inside] == 255).all()
        found, expected = found[inside].reshape(min(size), -1), expected[inside].reshape(min(size), -1)
    # Scaled down, a block is a whole number of cells, or its edge falls into one (96 / 32: 8 pixels are 2.67 cells).
    exact = width % 32 == height % 32 == 0 and max(size) <= 64
    assert (found == expected).mean() == 1 if exact else (found == expected).mean() > 0.6


@pytest.mark.parametrize(("request_fields", "message"), [
    ({"score_threshold": 1.5}, r"score_threshold 1.5 is not in \[0, 1\]"),
    ({"mask_form": 9}, "mask_form 9 is unknown; there are MASK_FORM_PNG, MASK_FORM_RUNS, MASK_FORM_CLASS_MAP"),
    ({"mask_size": 9}, "mask_size 9 is unknown"),
])  # fmt: skip
def test_senseless_options_are_refused(request_fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        head("argmax", (3, 8, 8)).check(pb.ImageRequest(**request_fields))


def test_good_options_pass() -> None:
    made = head("argmax", (3, 8, 8))
    assert made.slow
    for form in FORMS:
        made.check(pb.ImageRequest(mask_form=form, mask_size=pb.MASK_SIZE_PICTURE, score_threshold=0.5))


@pytest.mark.parametrize(("name", "bad"), [
    ("argmax", math.nan), ("argmax", math.inf), ("class_map", math.nan), ("class_map", -1), ("class_map", 65535),
    ("sigmoid", math.nan), ("foreground", math.nan),
])  # fmt: skip
def test_senseless_outputs_are_a_fault_of_ours(name: str, bad: float) -> None:
    shape = (2, 2, 2) if name == "argmax" else (2, 2)
    values = np.zeros(shape)
    values[..., 1, 1] = bad
    with pytest.raises(Internal, match="answered"):
        segment(head(name, shape), values)


@pytest.mark.parametrize(("name", "shapes", "message"), [
    ("argmax", [(3, 4)], r"head argmax reads one output \[classes, height, width\].*here: out0 float32 \[3, 4\]"),
    ("argmax", [(3, 4, 4), (1,)], r"here: out0 float32 \[3, 4, 4\], out1 float32 \[1\]"),
    ("argmax", [(1, 4, 4)], r"One class is read by sigmoid \(logits\) or foreground"),
    ("class_map", [(4,)], r"reads one output \[height, width\]"),
    ("sigmoid", [(3, 4, 4)], r"here: out0 float32 \[3, 4, 4\]. Such outputs are read by argmax"),
    ("foreground", [(4, 4), (4, 4)], "reads one output"),
])  # fmt: skip
def test_heads_that_do_not_fit_the_model(name: str, shapes: list[tuple[int, ...]], message: str) -> None:
    outputs = tuple(Tensor(f"out{number}", "float32", shape) for number, shape in enumerate(shapes))
    with pytest.raises(ConfigurationError, match=message):
        make_head(config(head=name, outputs=outputs))


def test_a_mask_with_too_many_pixels_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"9000 x 8000 pixels; the limit is 33,554,432 in all: ask for mask_size"):
        segment(head("class_map", (4, 4)), ROWS, PictureSize(9000, 8000), mask_size=pb.MASK_SIZE_PICTURE)
    assert segment(head("class_map", (4, 4)), ROWS, PictureSize(9000, 8000)).width == 4


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_that_is_too_large_is_refused(form: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_module, "REPLY_BYTES", 6000)
    noise = np.random.default_rng(0).integers(0, 200, (80, 80))
    name = pb.MaskForm.Name(form)
    with pytest.raises(InvalidRequest, match=f"80 x 80 pixels takes .* as {name}; the limit is 6,000: ask for another"):
        segment(head("class_map", (80, 80)), noise, PictureSize(80, 80), "int64", mask_form=form)
