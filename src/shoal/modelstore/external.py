"""Weights that an ONNX model keeps in files beside it: found, held against those files, read, and written anew.

Only what lies in the model's own folder is read, whatever the model says, and no link that leads out of it: a model
comes from elsewhere, and what it names would be pushed with it.
https://github.com/onnx/onnx/blob/main/docs/ExternalData.md
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from onnx import TensorProto

from shoal.errors import ConfigurationError
from shoal.runtime import intake

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import onnx

FILE: Final = "model.onnx.data"
"""Where ``save`` puts them, beside the model."""
_ALIGNMENT_BYTES: Final = 4096
"""So that a runtime may map a tensor into memory."""
_CHUNK_BYTES: Final = 2**24


class Piece(NamedTuple):
    """A tensor's place in a file."""

    file: Path
    offset: int
    size: int


def tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Those of ``model`` whose data is in another file, subgraphs included."""
    found = [*_of_graph(model.graph), *(tensor for each in model.functions for tensor in _of_nodes(each.node))]
    return [tensor for tensor in found if tensor.data_location == TensorProto.EXTERNAL]


def piece(tensor: onnx.TensorProto, folder: Path) -> Piece:
    """Where the data of ``tensor`` is, of a model in ``folder``.

    Raises:
        ConfigurationError: nowhere, outside the folder, or not whole.
    """
    said = {entry.key: entry.value for entry in tensor.external_data}
    file = _file(said.get("location", ""), folder)
    try:
        status = file.stat()
        intake.require_regular(status, file)
        offset = int(said.get("offset", 0))
        size = int(said.get("length", status.st_size - offset))
    except FileNotFoundError:
        raise ConfigurationError(
            f"its weights are in {file.name!r}, which isn't in {file.parent.absolute()}; put it there, beside the model"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"its weights are in {file}, which {error.strerror}") from None
    except ValueError:
        raise ConfigurationError(f"where the data of {tensor.name!r} is in {file.name!r} is no number") from None
    if offset < 0 or size < 0 or offset + size > status.st_size:
        raise ConfigurationError(
            f"the data of {tensor.name!r} is at bytes {offset:,} to {offset + size:,} of {file.name!r}, "
            f"which has {status.st_size:,}; it isn't whole, or another model's"
        )
    return Piece(file, offset, size)


def load(tensor: onnx.TensorProto, place: Piece) -> None:
    """Takes the data into ``tensor``."""
    with intake.opened(place.file) as file:
        file.seek(place.offset)
        content = file.read(place.size)
    tensor.raw_data = content
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


def save(model: onnx.ModelProto, folder: Path, target: Path) -> None:
    """Copies what ``model``, read from ``folder``, has in other files into one file at ``target``, and names that.

    Raises:
        ConfigurationError: as ``piece``.
        OSError: a file can't be read or written.
    """
    with target.open("wb") as out:
        for tensor in tensors(model):
            place = piece(tensor, folder)
            out.seek(-out.tell() % _ALIGNMENT_BYTES, os.SEEK_CUR)
            begin = out.tell()
            for chunk in _chunks(place):
                out.write(chunk)
            del tensor.external_data[:]
            for key, value in (("location", target.name), ("offset", begin), ("length", place.size)):
                tensor.external_data.add(key=key, value=str(value))


def _file(location: str, folder: Path) -> Path:
    parts = Path(location).parts
    if not location or "\0" in location or "\\" in location or Path(location).is_absolute() or ".." in parts:
        raise ConfigurationError(
            f"its weights are in {location!r}; only a file of the model's own folder is read: export it again with a "
            "plain name"
        )
    file = folder / location
    if not intake.is_inside(file, folder):
        raise ConfigurationError(
            f"its weights are in {location!r}, a link that leads out of {folder.absolute()}; put the file itself there "
            "(`cp -L`)"
        )
    return file


def _chunks(place: Piece) -> Iterator[bytes]:
    left = place.size
    with intake.opened(place.file) as file:
        file.seek(place.offset)
        while left and (chunk := file.read(min(left, _CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _of_graph(graph)
