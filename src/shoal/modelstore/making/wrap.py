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
from shoal.modelconfig import keys, pbtxt
from shoal.modelconfig.model import Tensor
from shoal.modelstore import size_inputs
from shoal.modelstore.graph import names_read, opset_of, picture_input, require_valid
from shoal.modelstore.making.layout import CHANNELS, FLOATS, is_channels_first
from shoal.modelstore.output_names import needed
from shoal.modelstore.outputs import VARIES
from shoal.modelstore.values import dtype_of, shape_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from shoal.modelstore.making.recipe import Recipe

BATCH = "batch"
"""The name of the batch dimension."""

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
    if kept := recipe.outputs or _read_by_head(wrapped.graph, recipe):
        _keep_outputs(wrapped.graph, kept)
    picture = picture_input(wrapped)
    channels_first = is_channels_first(wrapped.graph, picture, recipe.layout)
    was_open = VARIES in shape_of(picture)[1:]
    height, width = _size(picture, recipe, channels_first=channels_first)
    _set_shape(picture, (CHANNELS, height, width) if channels_first else (height, width, CHANNELS))
    if picture.type.tensor_type.elem_type != TensorProto.UINT8 or channels_first or recipe.channel_order == "bgr":
        _prepend(wrapped, picture, recipe, channels_first=channels_first)
    wrapped = _with_inferred_shapes(wrapped, was_open=was_open)
    outputs = tuple(_output(value, recipe.batching.max_batch_size) for value in wrapped.graph.output)
    return Wrapped(wrapped, Tensor(picture_input(wrapped).name, "uint8", (height, width, CHANNELS)), outputs)


def _size(picture: onnx.ValueInfoProto, recipe: Recipe, *, channels_first: bool) -> tuple[int, int]:
    shape = shape_of(picture)
    channels = shape[1 if channels_first else 3]
    if channels not in (VARIES, CHANNELS):
        raise ConfigurationError(
            f"input {picture.name!r} has {channels} channels, {list(shape)}; Shoal's pictures have three, RGB"
        )
    own = shape[2:] if channels_first else shape[1:3]
    if recipe.size is None and -1 in own:
        raise ConfigurationError(
            f"input {picture.name!r} leaves its size open, {list(shape)}; choose one with --size HEIGHTxWIDTH, or put "
            "the preprocessor_config.json of the model beside it"
        )
    height, width = recipe.size or own
    if any(side not in (-1, wanted) for side, wanted in zip(own, (height, width), strict=True)):
        raise ConfigurationError(
            f"input {picture.name!r} is fixed at {list(shape)}; --size {height}x{width}, or the size of a "
            "preprocessor_config.json beside it, can't change that"
        )
    return height, width


def _set_shape(value: onnx.ValueInfoProto, shape: tuple[int, ...]) -> None:
    elem_type = value.type.tensor_type.elem_type
    value.type.CopyFrom(helper.make_tensor_type_proto(elem_type, [BATCH, *shape]))


def _prepend(model: onnx.ModelProto, picture: onnx.ValueInfoProto, recipe: Recipe, *, channels_first: bool) -> None:
    """Puts the way from the uint8 picture to the model's own input, now an inner tensor, before the graph."""
    opset = opset_of(model)
    if opset < _OLDEST_OPSET:
        raise ConfigurationError(f"the model is of opset {opset}; export it again with {_OLDEST_OPSET} or later")
    shape = shape_of(picture)
    height, width = shape[2:] if channels_first else shape[1:3]
    image = helper.make_tensor_value_info(_free_name(model), TensorProto.UINT8, [BATCH, height, width, CHANNELS])
    chain = _Chain(image.name)
    if recipe.channel_order == "bgr":
        chain.add("Gather", chain.constant("bgr", np.array([2, 1, 0], np.int64)), axis=3)
    if channels_first:
        # On bytes, before the cast: OpenVINO spends 7 % less on EfficientNet-Lite0 than with the transpose last.
        chain.add("Transpose", perm=[0, 3, 1, 2])
    if picture.type.tensor_type.elem_type in FLOATS:
        per_channel = (1, CHANNELS, 1, 1) if channels_first else (CHANNELS,)
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


def _with_inferred_shapes(model: onnx.ModelProto, *, was_open: bool) -> onnx.ModelProto:
    """The model with its outputs' shapes for the new input; shapes that the file declared were for the old one.

    Behind an operator that isn't ONNX's own nothing can be inferred, and what the file declared stays. Where its input
    left no side open, also a single side that can't be inferred is as declared.
    """
    declared = [onnx.TypeProto.FromString(value.type.SerializeToString()) for value in model.graph.output]
    del model.graph.value_info[:]
    for value in model.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise ConfigurationError(f"not a valid ONNX model: {error}") from error
    for value, before in zip(inferred.graph.output, declared, strict=True):
        _complete(value, before, was_open=was_open)
    del inferred.graph.value_info[:]
    require_valid(inferred)
    return inferred


def _read_by_head(graph: onnx.GraphProto, recipe: Recipe) -> tuple[str, ...]:
    """Those that the head reads, if there are others: hidden states would be computed, and carried, for nobody."""
    names = [value.name for value in graph.output]
    kept = needed(recipe.head or keys.DEFAULT_HEAD[recipe.task], names)
    return kept if len(kept) < len(names) else ()


def _complete(value: onnx.ValueInfoProto, declared: onnx.TypeProto, *, was_open: bool) -> None:
    """Gives an output what was ``declared`` of it and couldn't be inferred."""
    if not value.type.HasField("tensor_type") or not declared.HasField("tensor_type"):
        return
    found, before = value.type.tensor_type, declared.tensor_type
    found.elem_type = before.elem_type
    if not before.HasField("shape"):
        return
    if not found.HasField("shape"):
        found.shape.CopyFrom(before.shape)
    elif not was_open and len(found.shape.dim) == len(before.shape.dim):
        for dim, old in list(zip(found.shape.dim, before.shape.dim, strict=True))[1:]:
            if not dim.HasField("dim_value"):
                dim.CopyFrom(old)
    if found.shape.dim and not found.shape.dim[0].HasField("dim_value"):
        found.shape.dim[0].dim_param = BATCH


def _output(value: onnx.ValueInfoProto, max_batch_size: int) -> Tensor:
    dtype = dtype_of(value)
    if dtype not in pbtxt.DTYPES.values():
        raise _unfit(value, f"is {dtype}, not numbers that can be served")
    if not value.type.tensor_type.HasField("shape"):
        raise _unfit(value, "has no shape in the file, and none can be inferred; export it with one")
    batch, *shape = shape_of(value) or (1,)
    if not shape:
        raise _unfit(value, "is one number" + (" for the whole batch" if not shape_of(value) else " a picture"))
    if batch > 0 and max_batch_size > 1:
        raise ConfigurationError(
            f"output {value.name!r} has a batch of {batch} whatever the input's; export the model with a dynamic batch "
            "axis, or set the largest batch to 1"
        )
    return Tensor(value.name, dtype, tuple(shape))


def _unfit(value: onnx.ValueInfoProto, what: str) -> ConfigurationError:
    return ConfigurationError(f"output {value.name!r} {what}; or leave it out: name those to serve with --output NAME")


def _keep_outputs(graph: onnx.GraphProto, wanted: tuple[str, ...]) -> None:
    """Leaves the ``wanted`` outputs alone, and of the nodes those that they need."""
    there = {value.name: value for value in graph.output}
    if missing := [name for name in wanted if name not in there]:
        raise ConfigurationError(f"--output {missing[0]}: the graph has no such output, but {', '.join(there)}")
    kept = [onnx.ValueInfoProto.FromString(there[name].SerializeToString()) for name in dict.fromkeys(wanted)]
    del graph.output[:]
    graph.output.extend(kept)
    reads = set(wanted)
    for index in reversed(range(len(graph.node))):  # they are sorted: a node comes after those that it reads from
        if reads.isdisjoint(graph.node[index].output):
            del graph.node[index]
        else:
            reads |= names_read(graph.node[index])
    for unread in (graph.input, graph.initializer):
        for index in reversed(range(len(unread))):
            if unread[index].name not in reads:
                del unread[index]
