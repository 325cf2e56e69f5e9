from __future__ import annotations

from typing import Any, Literal

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from shoal.errors import ConfigurationError
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import Task, Tensor
from shoal.modelstore.making.recipe import Recipe
from shoal.modelstore.making.wrap import wrap
from support.tiny_models import classifier, detector, model

MEAN = (10.0, 20.0, 30.0)
STD = (2.0, 4.0, 8.0)


def recipe(**fields: Any) -> Recipe:
    return Recipe(name="m", task=Task.CLASSIFICATION, **fields)


def picture(count: int = 2, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def identity(**options: Any) -> onnx.ModelProto:
    """A graph that answers its input, flattened."""
    return model([helper.make_node("Flatten", ["input"], ["y"])], 8, {}, {"y": [192]}, **options)


def run(wrapped: onnx.ModelProto, pictures: np.ndarray) -> np.ndarray:
    name = wrapped.graph.input[0].name
    (answer,) = ReferenceEvaluator(wrapped).run(None, {name: pictures})
    return np.asarray(answer)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_the_graph_normalises_as_the_formula_says(channels_last: bool, order: Literal["rgb", "bgr"]) -> None:
    wrapped = wrap(identity(channels_last=channels_last), recipe(mean=MEAN, std=STD, channel_order=order))
    pixels = picture()[..., ::-1] if order == "bgr" else picture()
    expected = (pixels.astype(np.float32) - MEAN) / np.array(STD)
    if not channels_last:
        expected = expected.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(run(wrapped.model, picture()), expected.reshape(2, -1), rtol=1e-6)
    assert wrapped.input == Tensor("image", "uint8", (8, 8, 3))


def test_a_half_precision_input_stays_one() -> None:
    nodes = [
        helper.make_node("Cast", ["input"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["f"], ["y"]),
    ]
    half = model(nodes, 8, {}, {"y": [192]}, elem_type=TensorProto.FLOAT16)
    assert run(wrap(half, recipe()).model, picture()).max() <= 1


def test_a_uint8_nhwc_model_is_taken_as_it_is() -> None:
    nodes = [
        helper.make_node("Cast", ["input"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["f"], ["y"]),
    ]
    ready = model(nodes, 8, {}, {"y": [192]}, elem_type=TensorProto.UINT8, channels_last=True)
    wrapped = wrap(ready, recipe())
    assert [node.op_type for node in wrapped.model.graph.node] == ["Cast", "Flatten"]
    assert wrapped.input.name == "input"


def test_the_original_is_left_alone() -> None:
    original = classifier()
    before = original.SerializeToString()
    wrap(original, recipe())
    assert original.SerializeToString() == before


def test_any_batch_size_and_the_output_shapes_follow() -> None:
    wrapped = wrap(detector(None), recipe(size=(32, 32)))
    assert wrapped.outputs == (Tensor("boxes", "float32", (4, 4)), Tensor("scores", "float32", (4,)))
    evaluator = ReferenceEvaluator(wrapped.model)
    for count in (1, 3):
        boxes, scores = evaluator.run(None, {"image": picture(count, 32)})
        assert (boxes.shape, scores.shape) == ((count, 4, 4), (count, 4))


def test_a_taken_name_is_avoided() -> None:
    nodes = [helper.make_node("Identity", ["input"], ["image"]), helper.make_node("Flatten", ["image"], ["y"])]
    assert wrap(model(nodes, 8, {}, {"y": [192]}), recipe()).input.name == "shoal/image"


def test_a_declared_batch_of_one_becomes_dynamic_where_the_graph_allows() -> None:
    assert run(wrap(identity(batch=1), recipe()).model, picture(3)).shape == (3, 192)


def fixed_batch() -> onnx.ModelProto:
    nodes = [helper.make_node("Reshape", ["input", "shape"], ["y"])]
    return model(nodes, 8, {"shape": np.array([1, 192], np.int64)}, {"y": [192]}, batch=1)


def test_a_graph_that_fixes_its_batch_serves_batches_of_one_only() -> None:
    with pytest.raises(ConfigurationError, match="dynamic batch axis"):
        wrap(fixed_batch(), recipe(batching=BatchingSettings(max_batch_size=2)))
    assert wrap(fixed_batch(), recipe()).outputs[0].shape == (192,)


@pytest.mark.parametrize(
    ("source", "fields", "message"),
    [
        (classifier(None), {}, "leaves its size open"),
        (classifier(32), {"size": (16, 16)}, "is fixed at"),
        (model([helper.make_node("Flatten", ["input"], ["y"])], 8, {}, {"y": [192]}, elem_type=TensorProto.INT32), {},
         "expected a float or uint8 picture"),
    ],
)  # fmt: skip
def test_what_cannot_be_wrapped_says_why(source: onnx.ModelProto, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        wrap(source, recipe(**fields))


def test_two_inputs_are_refused() -> None:
    two = identity()
    two.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    with pytest.raises(ConfigurationError, match="input, mask"):
        wrap(two, recipe())


def test_an_invalid_graph_is_refused() -> None:
    broken = identity()
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ConfigurationError, match="not a valid ONNX model"):
        wrap(broken, recipe())


def test_an_old_opset_is_refused() -> None:
    old = identity()
    old.opset_import[0].version = 6
    with pytest.raises(ConfigurationError, match="opset 6"):
        wrap(old, recipe())
