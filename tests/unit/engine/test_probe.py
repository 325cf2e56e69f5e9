from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from shoal.engine import Inference, NotBatchable, probe
from shoal.engine.openvino import OpenVinoEngine
from shoal.errors import ConfigurationError
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import Tensor
from support.pictures import config
from support.scripted_engine import CONFIG, ScriptedModel, ScriptedSlot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import onnx

    from shoal.modelconfig.model import ModelConfig

RANDOM = np.random.default_rng(5)
WEIGHTS = {
    "first": RANDOM.normal(0, 0.2, (8, 3, 3, 3)).astype(np.float32),
    "second": RANDOM.normal(0, 0.2, (8, 8, 3, 3)).astype(np.float32),
    "matrix": RANDOM.normal(0, 0.5, (8, 10)).astype(np.float32),
    "255": np.array(255, np.float32),
    "eps": np.array(1e-3, np.float32),
    "one row": np.array([1, -1]),
    "rows of 10": np.array([-1, 10]),
    "first row": np.array([0]),
    "shape 1": np.array([1, 10]),
    "scale": np.ones(8, np.float32),
    "bias": np.zeros(8, np.float32),
    "k": np.array([4]),
    "backwards": np.array([-1]),
    "end": np.array([-(2**31)]),
    "axis 0": np.array([0]),
}


def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(", "), output.split(", "), **attributes)


NETWORK = [
    node("Cast", "picture", "floats", to=TensorProto.FLOAT),
    node("Div", "floats, 255", "unit"),
    node("Transpose", "unit", "planes", perm=[0, 3, 1, 2]),
    node("Conv", "planes, first", "a", pads=[1, 1, 1, 1], strides=[2, 2]),
    node("Relu", "a", "b"),
]
"""uint8 ``picture`` to ``b``, ``(n, 8, 16, 16)``."""
SCORES = [
    node("GlobalAveragePool", "c", "pooled"),
    node("Flatten", "pooled", "features"),
    node("MatMul", "features, matrix", "scores"),
]
"""``c``, ``(n, 8, h, w)``, to ``scores``, ``(n, 10)``."""
SOUND = node("Conv", "b, second", "c")


def write(path: Path, nodes: list[onnx.NodeProto], output: str = "out") -> None:
    used = {name for each in nodes for name in each.input}
    graph = helper.make_graph(
        nodes,
        "probed",
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, ["n", 32, 32, 3])],
        [helper.make_empty_tensor_value_info(output)],
        [numpy_helper.from_array(value, name) for name, value in WEIGHTS.items() if name in used],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def described(path: Path, most: int = 8, shape: tuple[int, ...] = (10,), dtype: str = "float32") -> ModelConfig:
    made = config(outputs=(Tensor("out", dtype, shape),), batching=BatchingSettings(max_batch_size=most))
    return replace(made, path=path, input=Tensor("picture", "uint8", (32, 32, 3)))


@pytest.fixture(params=["f32", "bf16"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[OpenVinoEngine]:
    made = OpenVinoEngine(threads=1, precision=request.param)
    yield made
    await made.close()


MIXING: dict[str, list[onnx.NodeProto]] = {
    "a softmax over the batch": [SOUND, *SCORES, node("Softmax", "scores", "out", axis=0)],
    "a softmax over all of it": [
        SOUND,
        *SCORES,
        node("Reshape", "scores, one row", "flat"),
        node("Softmax", "flat", "soft", axis=1),
        node("Reshape", "soft, rows of 10", "out"),
    ],
    "statistics over the batch": [
        node("ReduceMean", "b", "mean", axes=[0, 2, 3], keepdims=1),
        node("Sub", "b, mean", "centred"),
        node("Mul", "centred, centred", "squares"),
        node("ReduceMean", "squares", "variance", axes=[0, 2, 3], keepdims=1),
        node("Add", "variance, eps", "some"),
        node("Sqrt", "some", "deviation"),
        node("Div", "centred, deviation", "normal"),
        node("Conv", "normal, second", "c"),
        node("Relu", "c", "d"),
        node("GlobalAveragePool", "d", "pooled"),
        node("Flatten", "pooled", "features"),
        node("MatMul", "features, matrix", "out"),
    ],
    "a mean over the batch": [
        SOUND,
        *SCORES,
        node("ReduceMean", "scores", "mean", axes=[0], keepdims=1),
        node("Sub", "scores, mean", "out"),
    ],
    "the largest of the batch": [
        SOUND,
        *SCORES,
        node("ReduceMax", "scores", "most", axes=[0], keepdims=1),
        node("Div", "scores, most", "out"),
    ],
    "batch and features change places": [
        SOUND,
        *SCORES,
        node("Transpose", "scores", "columns", perm=[1, 0]),
        node("Reshape", "columns, rows of 10", "out"),
    ],
    "the first picture's answer for all": [
        SOUND,
        *SCORES,
        node("Gather", "scores, first row", "first one", axis=0),
        node("Shape", "scores", "shape"),
        node("Expand", "first one, shape", "out"),
    ],
    "the batch backwards": [SOUND, *SCORES, node("Slice", "scores, backwards, end, axis 0, backwards", "out")],
    "one row for all": [SOUND, *SCORES, node("Reshape", "scores, shape 1", "out")],
    "all rows in one": [SOUND, *SCORES, node("Reshape", "scores, one row", "out")],
    "a cumulative sum": [SOUND, *SCORES, node("CumSum", "scores, first row", "out")],
}
"""Exports that work with one picture."""


@pytest.mark.parametrize("most", [2, 3, 8])
@pytest.mark.parametrize("how", MIXING)
async def test_pictures_that_change_each_others_answers(
    engine: OpenVinoEngine, tmp_path: Path, how: str, most: int
) -> None:
    path = tmp_path / "model.onnx"
    write(path, [*NETWORK, *MIXING[how]])
    given = described(path, most)
    loaded = await probe.load(engine, given)
    assert loaded.alone_because
    assert loaded.model.config == probe.single(given)
    assert [each["out"].shape for each in loaded.samples] == [(1, 10)] * 3


SOUND_ONES: dict[str, tuple[list[onnx.NodeProto], tuple[int, ...], str]] = {
    "a classifier": ([SOUND, *SCORES, node("Softmax", "scores", "out", axis=1)], (10,), "float32"),
    "statistics of each picture": (
        [node("InstanceNormalization", "b, scale, bias", "n"), node("Conv", "n, second", "c"), *SCORES[:2],
         node("MatMul", "features, matrix", "out")], (10,), "float32",
    ),
    "statistics of training": (
        [node("BatchNormalization", "b, scale, bias, bias, scale", "n"), node("Conv", "n, second", "c"), *SCORES[:2],
         node("MatMul", "features, matrix", "out")], (10,), "float32",
    ),
    "a map of classes": (
        [node("Conv", "b, second", "c", pads=[1, 1, 1, 1]), node("ArgMax", "c", "out", axis=1, keepdims=0)],
        (16, 16), "int64",
    ),
    "the best few": ([SOUND, *SCORES, node("TopK", "scores, k", "out, which", axis=1)], (4,), "float32"),
    "the numbers of the best few": ([SOUND, *SCORES, node("TopK", "scores, k", "best, out", axis=1)], (4,), "int64"),
    "planes": ([node("Sigmoid", "b", "out")], (8, 16, 16), "float32"),
    "logarithms of zero": ([SOUND, *SCORES, node("Relu", "scores", "r"), node("Log", "r", "out")], (10,), "float32"),
    "scales of the whole batch": (
        [SOUND, *SCORES[:2], node("MatMul", "features, matrix", "y"),
         node("DynamicQuantizeLinear", "y", "q, s, z"), node("DequantizeLinear", "q, s, z", "out")],
        (10,), "float32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("most", [1, 2, 3, 8, 17])
@pytest.mark.parametrize("how", SOUND_ONES)
async def test_pictures_that_mind_their_own_business(
    engine: OpenVinoEngine, tmp_path: Path, how: str, most: int
) -> None:
    path = tmp_path / "model.onnx"
    nodes, shape, dtype = SOUND_ONES[how]
    write(path, [*NETWORK, *nodes])
    loaded = await probe.load(engine, described(path, most, shape, dtype))
    assert loaded.alone_because == ""
    assert loaded.model.config.batching.max_batch_size == most


@dataclass
class Padding(ScriptedModel):
    """Finds as many boxes as a picture is bright, and pads those of a batch to the most of them, and one more."""

    mixes: bool = False

    async def infer(self, slot: ScriptedSlot, size: int, timeout_microseconds: int = 0) -> Inference:
        bright = slot.input[:size].mean(axis=(1, 2, 3))
        rows = np.zeros((size, int(bright.max() / 8) + (size > 1 and not self.mixes), 6), np.float32)
        for row, value in zip(rows, bright, strict=True):
            row[: int(value / 8)] = value
        return Inference({"boxes": rows}, 0.001)


@pytest.mark.parametrize("mixes", [False, True])
async def test_answers_of_a_size_of_their_own_are_told_apart_without_a_fault(mixes: bool) -> None:
    with pytest.raises(NotBatchable, match=r"output 'boxes' of picture \d changes"):
        await probe.probe(Padding(CONFIG, mixes=mixes))


async def test_one_that_answers_otherwise_each_time_is_told(
    engine: OpenVinoEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model.onnx"
    noise = [node("RandomNormalLike", "scores", "noise"), node("Add", "scores, noise", "out")]
    write(path, [*NETWORK, SOUND, *SCORES, *noise])
    loaded = await probe.load(engine, described(path))
    assert loaded.alone_because == ""
    assert "answers the same pictures otherwise each time" in caplog.text


async def test_one_that_can_not_run_a_single_picture(tmp_path: Path) -> None:
    model = ScriptedModel(replace(CONFIG, path=tmp_path / "model.onnx"), poison=int(probe.pictures(CONFIG)[0].max()))
    with pytest.raises(ConfigurationError, match=r"model\.onnx: can't be executed: poisoned") as caught:
        await probe.probe(model)
    assert not isinstance(caught.value, NotBatchable)
    assert not model.in_use


def test_pictures_are_always_the_same_and_fed_as_a_worker_does() -> None:
    plain = config(24, 40)
    for one, other in zip(probe.pictures(plain), probe.pictures(plain), strict=True):
        assert (one.shape, one.dtype) == ((24, 40, 3), np.uint8)
        np.testing.assert_array_equal(one, other)
    planes = replace(plain, input=Tensor("image", "float32", (3, 24, 40)), mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))
    for fed, pixels in zip(probe.pictures(planes), probe.pictures(plain), strict=True):
        assert (fed.shape, fed.dtype) == ((3, 24, 40), np.float32)
        np.testing.assert_allclose(fed[1], (pixels[..., 1] - 2.0) / 5.0, rtol=1e-6)
