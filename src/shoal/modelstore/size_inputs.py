"""Inputs beside the picture that tell a detector its size: the graph itself can say it.

Workers answer boxes of the upright picture from boxes of the model's frame. So a model that wants to know how large the
picture was, to scale its boxes, is told the size of the frame, and answers in pixels of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    import onnx

_PICTURE_RANK: Final = 4
_CHANNELS: Final = 3
_NUMBERS: Final = {
    TensorProto.INT64,
    TensorProto.INT32,
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.DOUBLE,
    TensorProto.BOOL,
}
_OLDEST_OPSET: Final = 8
"""The first with Expand."""
_ONES: Final = "1"


class _Known(NamedTuple):
    rank: int
    says: str
    """``wh`` and ``hw``: the sides in this order; ``_ONES``: all is picture, or nothing was scaled."""


KNOWN: Final = {
    "orig_target_sizes": _Known(2, "wh"),
    "im_shape": _Known(2, "hw"),
    "scale_factor": _Known(2, _ONES),
    "pixel_mask": _Known(3, _ONES),
}
"""The names in RT-DETR, D-FINE and DEIM (https://github.com/lyuwenyu/RT-DETR, ``tools/export_onnx.py``), in
PaddleDetection (``deploy/python/preprocess.py``) and in DETR at Hugging Face."""


def fill(model: onnx.ModelProto) -> None:
    """Makes the graph say the inputs that are known, so that the picture is left alone.

    Raises:
        ConfigurationError: one that is known by name has another shape or data type.
    """
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    pictures = [value for value in inputs if len(_dims(value)) == _PICTURE_RANK]
    sizes = [value for value in inputs if value.name in KNOWN]
    if len(pictures) != 1 or not sizes:
        return
    opset = next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    if opset < _OLDEST_OPSET:
        raise ConfigurationError(f"the model is of opset {opset}; export it again with {_OLDEST_OPSET} or later")
    nodes = [helper.make_node("Shape", [pictures[0].name], [_SHAPE], name=_SHAPE)]
    for value in sizes:
        nodes += _said(model.graph, value, _sides(pictures[0]))
        model.graph.input.remove(value)
    nodes += model.graph.node
    del model.graph.node[:]
    model.graph.node.extend(nodes)


_SHAPE: Final = "shoal/picture/shape"


def _said(graph: onnx.GraphProto, value: onnx.ValueInfoProto, sides: dict[str, int]) -> list[onnx.NodeProto]:
    """Nodes that make ``value`` from the shape of the picture, for batches of any size."""
    known, dims, kind = KNOWN[value.name], _dims(value), value.type.tensor_type.elem_type
    if len(dims) != known.rank or kind not in _NUMBERS or (known.rank == 2 and dims[1] not in {-1, 2}):
        raise ConfigurationError(
            f"input {value.name!r} of shape {list(dims)} isn't the one that is known by this name; Shoal feeds exactly "
            "one input, the picture"
        )
    nodes: list[onnx.NodeProto] = []

    def constant(what: str, numbers: list[int], dtype: type = np.int64) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(numbers, dtype), f"shoal/{value.name}/{what}"))
        return f"shoal/{value.name}/{what}"

    def add(operator: str, what: str, *inputs: str, **attributes: Any) -> str:  # of several types
        name = what if what == value.name else f"shoal/{value.name}/{what}"
        nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    batch = add("Gather", "batch", _SHAPE, constant("first", [0]), axis=0)
    if known.says == _ONES:
        numbers = constant("one", [1])
    else:
        numbers = add("Gather", "sides", _SHAPE, constant("axes", [sides[side] for side in known.says]), axis=0)
    if known.rank == 2:
        rest = constant("two", [2])
    elif -1 in dims[1:]:
        rest = add("Gather", "both", _SHAPE, constant("rows and columns", [sides["h"], sides["w"]]), axis=0)
    else:
        rest = constant("own", list(dims[1:]))
    shape = add("Concat", "shape", batch, rest, axis=0)
    add("Expand", value.name, add("Cast", "numbers", numbers, to=kind), shape)
    return nodes


def _sides(picture: onnx.ValueInfoProto) -> dict[str, int]:
    """Which dimension of the picture is its height, and which its width."""
    dims = _dims(picture)
    last = dims[3] == _CHANNELS and dims[1] != _CHANNELS
    return {"h": 1, "w": 2} if last else {"h": 2, "w": 3}


def _dims(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else -1 for dim in dims)
