"""Reads an ONNX file, and says what it is where it isn't one that can be served."""

from __future__ import annotations

from errno import EFBIG
from typing import TYPE_CHECKING, Final

import onnx
from google.protobuf.message import DecodeError
from onnx import defs

from shoal.errors import ConfigurationError
from shoal.modelstore import external, size_inputs
from shoal.runtime import intake

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

LARGEST_BYTES: Final = 2**31 - 1
"""The most that one file may have: protobuf holds no more."""
INLINE_BYTES: Final = 2**30
"""Weights up to this size in all go into the model's own file; more stay in a file beside it."""
_SMALL_BYTES: Final = 2**16
"""Constants up to this size, shapes among them, are always taken in: inference of shapes needs them."""
_STANDARD: Final = ("", "ai.onnx")
TOO_LARGE: Final = (
    "is over 2 GiB, which is the most that one ONNX file may hold; export it with its weights in a file beside it "
    "(`onnx.save(model, path, save_as_external_data=True)`)"
)


def load(file: Path, *, inline_bytes: int = INLINE_BYTES) -> onnx.ModelProto:
    """The model in ``file``, its weights taken in where they are small enough, and valid.

    Raises:
        ConfigurationError: it can't be read, is no ONNX model, or weights that it names aren't beside it.
    """
    model = _parse(file)
    places = [(tensor, external.piece(tensor, file.parent)) for tensor in external.tensors(model)]
    small = file.stat().st_size + sum(place.size for _, place in places) <= inline_bytes
    for tensor, place in places:
        if small or place.size <= _SMALL_BYTES:
            try:
                external.load(tensor, place)
            except OSError as error:
                raise ConfigurationError(f"{place.file}: can't be read: {error.strerror}") from error
    require_valid(model)
    return model


def read(file: Path) -> onnx.ModelProto:
    """The graph in ``file``, with weights that it keeps elsewhere left there, though they are whole.

    Raises:
        ConfigurationError: as ``load``.
    """
    return load(file, inline_bytes=0)


def files_beside(file: Path) -> set[Path]:
    """The files that the model in ``file`` has weights in. Raises as ``load``."""
    return {external.piece(tensor, file.parent).file for tensor in external.tensors(_parse(file))}


def require_valid(model: onnx.ModelProto) -> None:
    """Raises ConfigurationError where ``model`` isn't valid ONNX, or newer than what is installed here knows."""
    if not model.HasField("graph") or not model.graph.node:
        raise ConfigurationError("holds no graph; it isn't an ONNX model, or an empty one")
    if not model.graph.output:
        raise ConfigurationError("its graph has no outputs; export it with those that are to be served")
    _require_known(model)
    try:
        onnx.checker.check_model(_as_checked(model))
    except onnx.checker.ValidationError as error:
        raise ConfigurationError(f"not a valid ONNX model: {_first_line(error)}") from error
    except ValueError as error:  # over 2 GiB once it is written out
        raise ConfigurationError(TOO_LARGE) from error


def foreign_operators(model: onnx.ModelProto) -> list[str]:
    """Operators beyond ONNX's own, as ``domain.Operator``, sorted: of ONNX Runtime, or of whoever made the model."""
    own = {(function.domain, function.name) for function in model.functions}
    used = {(node.domain, node.op_type) for node in _nodes(model)}
    return sorted(f"{domain}.{name}" for domain, name in used - own if not _is_standard(domain))


def _parse(file: Path) -> onnx.ModelProto:
    try:
        with intake.opened(file) as opened:
            content = intake.read_opened(opened, file, LARGEST_BYTES)
    except FileNotFoundError as error:
        raise ConfigurationError("no such file") from error
    except OSError as error:
        raise ConfigurationError(TOO_LARGE if error.errno == EFBIG else f"can't be read: {error.strerror}") from error
    if not content:
        raise ConfigurationError("is empty")
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise ConfigurationError("can't be read as ONNX: it isn't, or is cut off") from error
    if not all(isinstance(name, str) for name in _names(model)):  # protobuf gives what isn't UTF-8 as bytes
        raise ConfigurationError("can't be read as ONNX: names in it aren't UTF-8; it isn't ONNX, or was damaged")
    return model


def _require_known(model: onnx.ModelProto) -> None:
    newest = defs.onnx_opset_version()
    if model.ir_version > onnx.IR_VERSION:
        raise ConfigurationError(
            f"is of ONNX IR version {model.ir_version}; onnx {onnx.__version__}, which is installed here, knows "
            f"{onnx.IR_VERSION}: upgrade it (`pip install -U onnx`), or export the model with an older one"
        )
    opset = opset_of(model)
    if opset > newest:
        raise ConfigurationError(
            f"is of opset {opset}; onnx {onnx.__version__}, which is installed here, knows {newest}: upgrade it "
            f"(`pip install -U onnx`), or export the model with opset {newest} or less"
        )
    own = {(function.domain, function.name) for function in model.functions}
    unknown = sorted(
        {
            node.op_type
            for node in _nodes(model)
            if _is_standard(node.domain) and (node.domain, node.op_type) not in own and not defs.has(node.op_type)
        }
    )
    if unknown:
        raise ConfigurationError(
            f"not a valid ONNX model: it uses {', '.join(unknown)} of ONNX's own domain, which doesn't have it; an "
            "operator of ONNX Runtime belongs to the domain com.microsoft"
        )
    imported = {entry.domain for entry in model.opset_import}
    missing = sorted({node.domain for node in _nodes(model) if not _is_standard(node.domain)} - imported)
    if missing:
        raise ConfigurationError(
            f"uses operators of {', '.join(missing)} ({', '.join(foreign_operators(model))}) without naming their "
            "version in opset_import; export it again"
        )


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators; 0 where it names none."""
    return next((entry.version for entry in model.opset_import if entry.domain in _STANDARD), 0)


def names_read(node: onnx.NodeProto) -> set[str]:
    """What ``node`` reads, its subgraphs included: they see the names around them."""
    found = set(node.input)
    for attribute in node.attribute:
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            found.update(value.name for value in inner.output)
            for each in inner.node:
                found |= names_read(each)
    return found


def _is_standard(domain: str) -> bool:
    return domain in _STANDARD


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from _with_subgraphs(model.graph.node)
    for function in model.functions:
        yield from _with_subgraphs(function.node)


def _names(model: onnx.ModelProto) -> Iterator[str]:
    graph = model.graph
    yield from (entry.domain for entry in model.opset_import)
    for value in (*graph.input, *graph.output):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    yield from (weight.name for weight in graph.initializer)
    for node in _nodes(model):
        yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)


def _with_subgraphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _with_subgraphs(graph.node)


def _as_checked(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model``, or a copy that ONNX's checker can take.

    It would look for weights in other files itself, where this process happens to be; and it calls a graph invalid
    whose outputs have no shape, which many runtimes serve and whose shapes can often be inferred.
    """
    shaped = all(value.type.tensor_type.HasField("shape") for value in model.graph.output)
    if shaped and not external.tensors(model):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in external.tensors(copy):
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
        del tensor.dims[:]
        tensor.dims.append(0)
    for value in copy.graph.output:
        if value.type.WhichOneof("value") == "tensor_type" and not value.type.tensor_type.HasField("shape"):
            value.type.tensor_type.shape.SetInParent()
    return copy


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")


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
