"""Detectors that want to know how large the picture was, from the file to boxes of the upright picture."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from shoal.engine import probe
from shoal.engine.openvino import OpenVinoEngine
from shoal.errors import ConfigurationError
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import Resize, Task
from shoal.modelstore.making.build import add_model
from shoal.modelstore.making.recipe import Recipe
from shoal.pictures.header import PictureSize
from shoal.v1 import inference_pb2 as pb
from shoal.worker.heads.head import make_head

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.modelconfig.model import ModelConfig

HEIGHT, WIDTH = 48, 96
BOX = (0.25, 0.125, 0.75, 0.5)
"""x1, y1, x2, y2 of the only box, in [0, 1] of what the model sees."""
CORNERS = {"corners": 1.0, "pixels": 1.0}


def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(", "), [output], **attributes)


def value(name: str, kind: int, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def graph(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: dict[str, tuple[int, list[int | str]]],
    constants: dict[str, Any],
    *,
    last: bool = False,
) -> onnx.ModelProto:
    shape: list[int | str] = ["n", HEIGHT, WIDTH, 3] if last else ["n", 3, HEIGHT, WIDTH]
    made = helper.make_graph(
        nodes,
        "g",
        [*inputs, value("images", TensorProto.FLOAT, shape)],
        [value(name, kind, dims) for name, (kind, dims) in outputs.items()],
        [numpy_helper.from_array(np.asarray(number), name) for name, number in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


SCORES = [
    node("ReduceMean", "images", "bright", axes=[1, 2, 3], keepdims=0),
    node("Reshape", "bright, column", "scores"),
]
LABELS = [node("Mul", "scores, zero", "zeros"), node("Cast", "zeros", "labels", to=TensorProto.INT64)]
OUTPUTS: dict[str, tuple[int, list[int | str]]] = {
    "labels": (TensorProto.INT64, ["n", 1]),
    "boxes": (TensorProto.FLOAT, ["n", 1, 4]),
    "scores": (TensorProto.FLOAT, ["n", 1]),
}
CONSTANTS = {
    "column": np.array([-1, 1]),
    "row": np.array([-1, 1, 4]),
    "box": np.array([[BOX]], np.float32),
    "zero": np.zeros(1, np.float32),
}


def rt_detr(*, kind: int = TensorProto.INT64, batch: int | str = "n", last: bool = False) -> onnx.ModelProto:
    """``boxes * orig_target_sizes.repeat(1, 2)``, as in its ``rtdetr_postprocessor.py``."""
    nodes = [
        *SCORES,
        *LABELS,
        node("Cast", "orig_target_sizes", "sizes", to=TensorProto.FLOAT),
        node("Concat", "sizes, sizes", "twice", axis=1),
        node("Reshape", "twice, row", "rows"),
        node("Mul", "rows, box", "boxes"),
    ]
    return graph(nodes, [value("orig_target_sizes", kind, [batch, 2])], OUTPUTS, CONSTANTS, last=last)


def paddle() -> onnx.ModelProto:
    """Boxes of the padded frame become those of the picture: divided by ``scale_factor``, in ``im_shape``'s pixels."""
    nodes = [
        *SCORES,
        *LABELS,
        node("Div", "im_shape, scale_factor", "origin"),
        node("Gather", "origin, backwards", "sizes", axis=1),
        node("Concat", "sizes, sizes", "twice", axis=1),
        node("Reshape", "twice, row", "rows"),
        node("Mul", "rows, box", "boxes"),
    ]
    inputs = [value(name, TensorProto.FLOAT, ["n", 2]) for name in ("im_shape", "scale_factor")]
    return graph(nodes, inputs, OUTPUTS, {**CONSTANTS, "backwards": np.array([1, 0])})


def masked(dims: list[int | str]) -> onnx.ModelProto:
    """A DETR whose only query counts what its mask shows: all of it."""
    nodes = [
        node("Cast", "pixel_mask", "shown", to=TensorProto.FLOAT),
        node("ReduceMean", "shown", "share", axes=[1, 2], keepdims=0),
        node("Reshape", "share, three", "logit"),
        node("Mul", "logit, sure", "logits"),
        *SCORES,
        node("Mul", "scores, zero", "nothing"),
        node("Reshape", "nothing, three", "nothings"),
        node("Add", "nothings, box", "pred_boxes"),
        node("Identity", "images", "hidden"),
    ]
    outputs: dict[str, tuple[int, list[int | str]]] = {
        "logits": (TensorProto.FLOAT, ["n", 1, 2]),
        "pred_boxes": (TensorProto.FLOAT, ["n", 1, 4]),
        "hidden": (TensorProto.FLOAT, ["n", 3, HEIGHT, WIDTH]),
    }
    centre = [(BOX[0] + BOX[2]) / 2, (BOX[1] + BOX[3]) / 2, BOX[2] - BOX[0], BOX[3] - BOX[1]]
    constants = {
        **CONSTANTS,
        "three": np.array([-1, 1, 1]),
        "sure": np.array([[[4.0, -4.0]]], np.float32),
        "box": np.array([[centre]], np.float32),
    }
    return graph(nodes, [value("pixel_mask", TensorProto.INT64, dims)], outputs, constants)


def add(store: Path, model: onnx.ModelProto, head: str = "boxes_scores", **recipe: Any) -> ModelConfig:
    given = {"head_parameters": CORNERS if head == "boxes_scores" else {}} | recipe
    batching = BatchingSettings(max_batch_size=3)
    return add_model(store, model, Recipe(name="sized", task=Task.DETECTION, head=head, batching=batching, **given))


def answer(config: ModelConfig, size: PictureSize) -> list[float]:
    """The box that a worker answers of the last of three white pictures."""

    async def run() -> pb.DetectReply:
        engine = OpenVinoEngine(threads=1, precision="f32")
        model = (await probe.load(engine, config)).model
        slot = await model.acquire()
        slot.input[:] = 255
        outputs = (await model.infer(slot, 3)).outputs
        await engine.close()
        reply = make_head(config).reply(outputs, 2, pb.ImageRequest(), size)
        assert isinstance(reply, pb.DetectReply)
        return reply

    (box,) = asyncio.run(run()).boxes
    return [box.x, box.y, box.x + box.width, box.y + box.height]


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.FLOAT, TensorProto.INT32])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("batch", ["n", 1])
def test_rt_detr(tmp_path: Path, kind: int, last: bool, batch: int | str) -> None:
    config = add(tmp_path, rt_detr(kind=kind, last=last, batch=batch))
    assert answer(config, PictureSize(640, 480)) == pytest.approx(BOX)


def test_a_letterbox_is_undone(tmp_path: Path) -> None:
    config = add(tmp_path, rt_detr(), resize=Resize.LETTERBOX)
    # A square picture fills the left half of the frame, 48 x 48 of 96 x 48: x doubles and is clipped.
    assert answer(config, PictureSize(100, 100)) == pytest.approx([0.5, 0.125, 1, 0.5])


def test_paddles(tmp_path: Path) -> None:
    assert answer(add(tmp_path, paddle()), PictureSize(640, 480)) == pytest.approx(BOX)


@pytest.mark.parametrize("dims", [["n", 64, 64], ["n", "h", "w"]])
def test_a_mask_of_what_is_picture(tmp_path: Path, dims: list[int | str]) -> None:
    config = add(tmp_path, masked(dims), "detr", labels=("thing",))
    assert [output.name for output in config.outputs] == ["logits", "pred_boxes"], "nobody reads the hidden state"
    assert answer(config, PictureSize(640, 480)) == pytest.approx(BOX)


@pytest.mark.parametrize(("name", "kind", "dims", "message"), [
    ("question", TensorProto.INT64, ["n", 2], "inputs are question, images; Shoal feeds exactly one, the picture, and"),
    ("target_sizes", TensorProto.INT64, ["n", 2], "knows what to say of orig_target_sizes, im_shape, scale_factor"),
    ("orig_target_sizes", TensorProto.INT64, ["n", 4], "isn't the one that is known by this name"),
    ("orig_target_sizes", TensorProto.INT64, ["n"], "isn't the one that is known by this name"),
    ("orig_target_sizes", TensorProto.STRING, ["n", 2], "isn't the one that is known by this name"),
    ("im_shape", TensorProto.FLOAT, ["n", 3], "isn't the one that is known by this name"),
])  # fmt: skip
def test_inputs_of_no_certain_meaning(
    tmp_path: Path, name: str, kind: int, dims: list[int | str], message: str
) -> None:
    nodes = [*SCORES, *LABELS, node("Identity", "box", "boxes"), node("Identity", name, "unused")]
    with pytest.raises(ConfigurationError, match=message):
        add(tmp_path, graph(nodes, [value(name, kind, dims)], OUTPUTS, CONSTANTS))


def test_counts_are_left_out(tmp_path: Path) -> None:
    """As TensorFlow's detectors have them."""
    nodes = [
        *SCORES,
        node("Mul", "scores, zero", "nothing"),
        node("Add", "nothing, one", "detection_classes"),
        node("Identity", "scores", "detection_scores"),
        node("Reshape", "nothing, rows", "nothings"),
        node("Add", "nothings, yx", "detection_boxes"),
        node("Identity", "bright", "num_detections"),
    ]
    outputs: dict[str, tuple[int, list[int | str]]] = {
        "detection_boxes": (TensorProto.FLOAT, ["n", 1, 4]),
        "detection_classes": (TensorProto.FLOAT, ["n", 1]),
        "detection_scores": (TensorProto.FLOAT, ["n", 1]),
        "num_detections": (TensorProto.FLOAT, ["n"]),
    }
    yx = np.array([[[BOX[1], BOX[0], BOX[3], BOX[2]]]], np.float32)
    constants = {**CONSTANTS, "yx": yx, "rows": np.array([-1, 1, 1]), "one": np.ones(1, np.float32)}
    config = add(tmp_path, graph(nodes, [], outputs, constants), head_parameters={})
    assert answer(config, PictureSize(640, 480)) == pytest.approx(BOX)
