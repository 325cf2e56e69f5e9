"""Where a model's input has its channels: as its shape says, else as the names of its axes or what reads it tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from onnx import TensorProto, helper

from shoal.errors import ConfigurationError
from shoal.modelstore.values import dtype_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

CHANNELS: Final = 3
FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})
_RANK: Final = 4
_NAMES: Final = frozenset({"c", "ch", "chan", "rgb"})
_PASSED: Final = frozenset(
    {"Cast", "Identity", "Sub", "Div", "Mul", "Add", "Pad", "QuantizeLinear", "DequantizeLinear", "Clip"}
)
"""Operators that leave the axes where they are."""
_MOST_STEPS: Final = 32
_TO_NCHW: Final = [0, 3, 1, 2]


def is_channels_first(
    graph: onnx.GraphProto, picture: onnx.ValueInfoProto, said: Literal["nchw", "nhwc"] | None
) -> bool:
    """Whether ``picture``, an input of ``graph``, is NCHW rather than NHWC; ``said`` decides where both could be.

    Raises:
        ConfigurationError: it is no picture, ``said`` can't be, or nothing tells.
    """
    dims = picture.type.tensor_type.shape.dim
    kind = picture.type.tensor_type.elem_type
    if len(dims) != _RANK or kind not in {*FLOATS, TensorProto.UINT8}:
        raise _no_picture(picture)
    first, last = _may_be(dims[1]), _may_be(dims[3])
    if said is not None:
        if not (first if said == "nchw" else last):
            raise ConfigurationError(f"--layout {said}: input {picture.name!r} is {_shape(picture)}")
        return said == "nchw"
    if not first and not last:
        raise _no_picture(picture)
    if first != last:
        return first
    sure_first, sure_last = dims[1].dim_value == CHANNELS, dims[3].dim_value == CHANNELS
    if sure_first or sure_last:
        return sure_first
    told = _by_name(dims)
    if told is None:
        told = _by_reader(graph, picture.name)
    if told is None:
        raise ConfigurationError(
            f"input {picture.name!r} is {_shape(picture)}, and nothing tells where its channels are; say it with "
            "--layout nchw or --layout nhwc"
        )
    return told


def _may_be(dim: onnx.TensorShapeProto.Dimension) -> bool:
    """Whether this axis can be the channels: three, or open."""
    return dim.dim_value == CHANNELS or dim.dim_value <= 0


def _by_name(dims: Sequence[onnx.TensorShapeProto.Dimension]) -> bool | None:
    names = [dims[axis].dim_param.lower() for axis in (1, 3)]
    first, last = ("channel" in name or name in _NAMES for name in names)
    return None if first == last else first


def _by_reader(graph: onnx.GraphProto, name: str) -> bool | None:
    """What the first operator that cares of the axes does with them."""
    weights = {weight.name: weight.dims for weight in graph.initializer}
    names = {name}
    for node in graph.node:
        if len(names) > _MOST_STEPS:
            break
        if not names.intersection(node.input):
            continue
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Conv" and len(node.input) > 1 and node.input[1] in weights:
            return bool(weights[node.input[1]][1] * attributes.get("group", 1) == CHANNELS) or None
        if node.op_type == "Transpose":
            return False if list(attributes.get("perm", ())) == _TO_NCHW else None
        if node.op_type in {"Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "BatchNormalization"}:
            return True  # ONNX has them for NCHW alone
        if node.op_type in _PASSED:
            names.update(node.output)
    return None


def _no_picture(picture: onnx.ValueInfoProto) -> ConfigurationError:
    return ConfigurationError(
        f"input {picture.name!r} is {dtype_of(picture)} {_shape(picture)}; expected a float or uint8 picture, "
        "[batch, 3, height, width] or [batch, height, width, 3]"
    )


def _shape(picture: onnx.ValueInfoProto) -> str:
    dims = picture.type.tensor_type.shape.dim
    return f"[{', '.join(str(dim.dim_value) if dim.dim_value > 0 else dim.dim_param or '?' for dim in dims)}]"
