"""The graphs and recipes of the published models; the integration tests run them with their weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from shoal.modelconfig.model import Resize, ResizeFilter
from shoal.modelstore.making import efficientnet, ppocr
from shoal.modelstore.making.published import PUBLISHED
from shoal.modelstore.making.wrap import wrap


def norm(prefix: str, channels: int) -> dict[str, np.ndarray]:
    return {
        f"{prefix}.weight": np.full(channels, 2, np.float32),
        f"{prefix}.bias": np.full(channels, 1, np.float32),
        f"{prefix}.running_mean": np.full(channels, 3, np.float32),
        f"{prefix}.running_var": np.full(channels, 4 - 1e-3, np.float32),
    }


def weights() -> dict[str, np.ndarray]:
    """All weights of the checkpoint, by its names and shapes, of ones."""
    shapes = {"_conv_stem": (32, 3, 3, 3), "_conv_head": (1280, 320, 1, 1), "_fc": (1000, 1280)}
    norms = {"_bn0": 32, "_bn1": 1280}
    width, block = 32, 0
    for stage in efficientnet.STAGES:
        for _ in range(stage.repeats):
            prefix, inner = f"_blocks.{block}.", width * stage.expansion
            if stage.expansion != 1:
                shapes[f"{prefix}_expand_conv"] = (inner, width, 1, 1)
                norms[f"{prefix}_bn0"] = inner
            shapes[f"{prefix}_depthwise_conv"] = (inner, 1, stage.kernel, stage.kernel)
            shapes[f"{prefix}_project_conv"] = (stage.outputs, inner, 1, 1)
            norms |= {f"{prefix}_bn1": inner, f"{prefix}_bn2": stage.outputs}
            width, block = stage.outputs, block + 1
    made = {f"{name}.weight": np.ones(shape, np.float32) for name, shape in shapes.items()}
    for name, channels in norms.items():
        made |= norm(name, channels)
    return made | {"_fc.bias": np.zeros(1000, np.float32)}


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    return efficientnet.build(weights())


def test_efficientnet_is_a_valid_graph_of_the_right_size(graph: onnx.ModelProto) -> None:
    wrapped = wrap(graph, efficientnet.recipe())
    assert wrapped.input.shape == (224, 224, 3)
    assert (wrapped.outputs[0].name, wrapped.outputs[0].shape) == ("logits", (1000,))
    operators = [node.op_type for node in wrapped.model.graph.node]
    # 16 blocks of three convolutions, less the first's expansion, and stem and head; nine blocks repeat their shape.
    assert (operators.count("Conv"), operators.count("Clip"), operators.count("Add")) == (49, 33, 9)


def test_batch_normalisation_is_folded(graph: onnx.ModelProto) -> None:
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    # gamma 2, deviation 2, mean 3, beta 1.
    np.testing.assert_allclose(numpy_helper.to_array(constants["_conv_stem.weight"]), 1, rtol=1e-6)
    np.testing.assert_allclose(numpy_helper.to_array(constants["_conv_stem.bias"]), -2, rtol=1e-6)


def test_padding_is_tensorflows(graph: onnx.ModelProto) -> None:
    pads = {
        tuple(attribute.ints) for node in graph.graph.node for attribute in node.attribute if attribute.name == "pads"
    }
    assert pads == {(0, 0, 0, 0), (0, 0, 1, 1), (1, 1, 1, 1), (1, 1, 2, 2), (2, 2, 2, 2)}


def test_efficientnets_recipe() -> None:
    recipe = efficientnet.recipe()
    assert len(recipe.labels) == len(set(recipe.labels)) == 1000
    assert (recipe.labels[285], recipe.labels[967]) == ("Egyptian cat", "espresso")
    assert (recipe.resize, recipe.resize_shorter_side, recipe.resize_filter) == (Resize.CROP, 256, ResizeFilter.BICUBIC)
    white = (255 - recipe.mean[0]) / recipe.std[0]
    assert white == pytest.approx((1 - 0.498) / 0.502)


def test_the_text_detectors_recipe() -> None:
    recipe = ppocr.recipe()
    assert (recipe.head, recipe.channel_order, recipe.labels) == ("db", "bgr", ("text",))
    assert all(side % 32 == 0 for side in recipe.size or (1,))


def test_both_are_known_by_name() -> None:
    assert list(PUBLISHED) == ["efficientnet-lite0", "pp-ocrv4-det"]
