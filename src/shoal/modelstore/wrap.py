"""Wraps an ONNX model so that it takes uint8 NHWC pictures and normalises them itself.

A uint8 picture is a quarter of the bytes of a float32 one, in every copy and every queue before the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from shoal.errors import ConfigurationError
from shoal.modelstore import keys, size_inputs
from shoal.modelstore.config import Tensor
from shoal.modelstore.outputs import needed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.modelstore.recipe import Recipe

BATCH = "batch"
"""The name of the batch dimension."""

_CHANNELS = 3
_RANK = 4
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE}
_OLDEST_OPSET = 7  # the first with numpy's broadcasting


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A model that takes uint8 NHWC pictures, and its tensors without the batch dimension."""

    model: onnx.ModelProto
    input: Tensor
    outputs: tuple[Tensor, ...]


def wrap(model: onnx.ModelProto, recipe: Recipe) -> Wrapped:
    """A copy of ``model`` that takes uint8 ``(batch, H, W, 3)`` RGB, any batch size.

    A float input, NCHW or NHWC, gets ``(x - mean) / std`` in front, a uint8 NCHW one a transpose; one that is uint8
    NHWC already stays as it is.

    Raises:
        ConfigurationError: the graph has no single picture input, fixes its batch size, or isn't valid ONNX.
    """
    wrapped = onnx.ModelProto()
    wrapped.CopyFrom(model)
    size_inputs.fill(wrapped)
    head = recipe.head or keys.DEFAULT_HEAD[recipe.task]
    _keep_outputs(wrapped.graph, needed(head, [value.name for value in wrapped.graph.output]))
    picture = picture_input(wrapped)
    channels_first = _channels_first(picture)
    height, width = _size(picture, recipe, channels_first=channels_first)
    _set_shape(picture, (_CHANNELS, height, width) if channels_first else (height, width, _CHANNELS))
    if picture.type.tensor_type.elem_type != TensorProto.UINT8 or channels_first or recipe.channel_order == "bgr":
        _prepend(wrapped, picture, recipe, channels_first=channels_first)
    wrapped = _with_inferred_shapes(wrapped)
    outputs = tuple(_output(value, recipe.batching.max_batch_size) for value in wrapped.graph.output)
    return Wrapped(wrapped, Tensor(picture_input(wrapped).name, "uint8", (height, width, _CHANNELS)), outputs)


def picture_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    """The graph's only input.

    Raises:
        ConfigurationError: it has none or several.
    """
    weights = {weight.name for weight in model.graph.initializer}  # before IR 4 they are listed as inputs too
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        found = ", ".join(value.name for value in inputs) or "none"
        raise ConfigurationError(
            f"the model's inputs are {found}; Shoal feeds exactly one, the picture, and knows what to say of "
            f"{', '.join(size_inputs.KNOWN)}"
        )
    return inputs[0]


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """The declared shape, batch dimension included; -1 where it varies."""
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else -1 for dim in dims)


def dtype_of(value: onnx.ValueInfoProto) -> str:
    """The data type, by numpy's name."""
    return str(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))


def _channels_first(picture: onnx.ValueInfoProto) -> bool:
    shape = shape_of(picture)
    kind = picture.type.tensor_type.elem_type
    if len(shape) != _RANK or _CHANNELS not in (shape[1], shape[3]) or kind not in {*_FLOATS, TensorProto.UINT8}:
        raise ConfigurationError(
            f"input {picture.name!r} is {dtype_of(picture)} {list(shape)}; expected a float or uint8 picture, "
            "[batch, 3, height, width] or [batch, height, width, 3]"
        )
    return shape[1] == _CHANNELS


def _size(picture: onnx.ValueInfoProto, recipe: Recipe, *, channels_first: bool) -> tuple[int, int]:
    shape = shape_of(picture)
    own = shape[2:] if channels_first else shape[1:3]
    if recipe.size is None and -1 in own:
        raise ConfigurationError(f"input {picture.name!r} leaves its size open, {list(shape)}; choose one with --size")
    height, width = recipe.size or own
    if any(side not in (-1, wanted) for side, wanted in zip(own, (height, width), strict=True)):
        raise ConfigurationError(
            f"input {picture.name!r} is fixed at {list(shape)}; --size {height}x{width} can't change it"
        )
    return height, width


def _set_shape(value: onnx.ValueInfoProto, shape: tuple[int, ...]) -> None:
    elem_type = value.type.tensor_type.elem_type
    value.type.CopyFrom(helper.make_tensor_type_proto(elem_type, [BATCH, *shape]))


def _prepend(model: onnx.ModelProto, picture: onnx.ValueInfoProto, recipe: Recipe, *, channels_first: bool) -> None:
    """Puts the way from the uint8 picture to the model's own input, now an inner tensor, before the graph."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    if opset < _OLDEST_OPSET:
        raise ConfigurationError(f"the model is of opset {opset}; export it again with {_OLDEST_OPSET} or later")
    shape = shape_of(picture)
    height, width = shape[2:] if channels_first else shape[1:3]
    image = helper.make_tensor_value_info(_free_name(model), TensorProto.UINT8, [BATCH, height, width, _CHANNELS])
    chain = _Chain(image.name)
    if recipe.channel_order == "bgr":
        chain.add("Gather", chain.constant("bgr", np.array([2, 1, 0], np.int64)), axis=3)
    if channels_first:
        # On bytes, before the cast: OpenVINO spends 7 % less on EfficientNet-Lite0 than with the transpose last.
        chain.add("Transpose", perm=[0, 3, 1, 2])
    if picture.type.tensor_type.elem_type in _FLOATS:
        per_channel = (1, _CHANNELS, 1, 1) if channels_first else (_CHANNELS,)
        chain.add("Cast", to=TensorProto.FLOAT)
        chain.add("Sub", chain.constant("mean", np.array(recipe.mean, np.float32).reshape(per_channel)))
        chain.add("Div", chain.constant("std", np.array(recipe.std, np.float32).reshape(per_channel)))
        if picture.type.tensor_type.elem_type != TensorProto.FLOAT:
            chain.add("Cast", to=picture.type.tensor_type.elem_type)
    chain.end(picture.name)
    graph = model.graph
    nodes = [*chain.nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(chain.constants)
    graph.input.remove(picture)
    graph.input.insert(0, image)


class _Chain:
    """Nodes in a row, from one tensor to another."""

    def __init__(self, start: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._at = start

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(value, f"shoal/{name}"))
        return f"shoal/{name}"

    def add(self, operator: str, *others: str, **attributes: int | list[int]) -> None:
        output = f"shoal/{len(self.nodes)}"
        node = helper.make_node(operator, [self._at, *others], [output], name=f"{output}/{operator}")
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        self._at = output

    def end(self, name: str) -> None:
        self.nodes[-1].output[0] = name


def _free_name(model: onnx.ModelProto) -> str:
    taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
    return next(name for name in ("image", "shoal/image") if name not in taken)


def _with_inferred_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its outputs' shapes for the new input; shapes that the file declared were for the old one."""
    declared = {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        onnx.checker.check_model(inferred)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConfigurationError(f"not a valid ONNX model: {error}") from error
    for value in inferred.graph.output:
        value.type.tensor_type.elem_type = declared[value.name]
    del inferred.graph.value_info[:]
    return inferred


def _keep_outputs(graph: onnx.GraphProto, wanted: tuple[str, ...]) -> None:
    """Leaves the others out: they would be computed, and carried, for nobody."""
    for value in [value for value in graph.output if value.name not in wanted]:
        graph.output.remove(value)


def _output(value: onnx.ValueInfoProto, max_batch_size: int) -> Tensor:
    batch, *shape = shape_of(value) or (-1,)
    if batch > 0 and max_batch_size > 1:
        raise ConfigurationError(
            f"output {value.name!r} has a batch of {batch} whatever the input's; export the model with a dynamic batch "
            "axis, or set the largest batch to 1"
        )
    return Tensor(value.name, dtype_of(value), tuple(shape))
