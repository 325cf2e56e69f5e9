"""What an ONNX graph says of its inputs and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from onnx import TensorProto, helper

from shoal.modelstore.outputs import VARIES

if TYPE_CHECKING:
    import onnx

_NO_NUMBERS: Final[dict[int, str]] = {TensorProto.STRING: "text", TensorProto.UNDEFINED: "untyped"}
_NO_TENSORS: Final = {
    "sequence_type": "a sequence", "map_type": "a map", "optional_type": "optional", "sparse_tensor_type": "sparse",
}  # fmt: skip


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """The declared shape, batch dimension included; ``VARIES`` where it does."""
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else VARIES for dim in dims)


def dtype_of(value: onnx.ValueInfoProto) -> str:
    """The data type, by numpy's name; in words where numpy has none, such as ``text`` or ``a sequence``."""
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        return _NO_TENSORS.get(kind, "untyped")
    number = value.type.tensor_type.elem_type
    if number in _NO_NUMBERS or number not in TensorProto.DataType.values():
        return _NO_NUMBERS.get(number, f"of data type {number}, which onnx doesn't know,")
    return str(helper.tensor_dtype_to_np_dtype(number))
