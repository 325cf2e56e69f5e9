"""Reads tensors from PyTorch's legacy checkpoint format (before 1.6) without PyTorch.

The file is a row of pickles (magic number, protocol, system, the object, the storages' keys), then each storage as a
64-bit count and its raw elements. Source: ``_legacy_load`` of ``torch/serialization.py``. The unpickler knows five
harmless names and refuses all others, so that a file can't run code.
"""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "LongStorage": np.dtype("<i8"),
    "HalfStorage": np.dtype("<f2"),
}


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A view of a storage whose elements come later in the file; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, elements: bytes) -> NDArray[Any]:
        """The tensor, copied; numpy checks that the view lies within ``elements``."""
        size = self.storage.dtype.itemsize
        strides = tuple(stride * size for stride in self.strides)
        return np.ndarray(self.shape, self.storage.dtype, elements, self.offset * size, strides).copy()


def load(file: BinaryIO, source: str) -> dict[str, NDArray[Any]]:
    """The tensors of a state dict, by name.

    Args:
        file: Open at the checkpoint's start.
        source: What to call it in errors.

    Raises:
        ConfigurationError: it isn't such a file, or holds anything but tensors.
    """
    try:
        if (_unpickle(file), _unpickle(file)) != (_MAGIC, _PROTOCOL):
            raise ConfigurationError(f"{source}: not a legacy PyTorch checkpoint")
        if not _unpickle(file)["little_endian"]:
            raise ConfigurationError(f"{source}: big-endian checkpoints are not supported")
        tensors: dict[str, _Tensor] = _unpickle(file)
        keys: list[str] = _unpickle(file)
        dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in tensors.values()}
        elements = {key: _read_storage(file, dtypes[key]) for key in keys}
        return {name: tensor.of(elements[tensor.storage.key]) for name, tensor in tensors.items()}
    except (
        pickle.UnpicklingError,
        EOFError,
        struct.error,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        MemoryError,
    ) as error:
        raise ConfigurationError(f"{source}: not a legacy PyTorch checkpoint of plain tensors: {error}") from error


def _unpickle(file: BinaryIO) -> Any:  # whatever the file holds
    return _Unpickler(file).load()


def _read_storage(file: BinaryIO, dtype: np.dtype[Any]) -> bytes:
    (count,) = struct.unpack("<q", file.read(8))
    elements = file.read(count * dtype.itemsize)
    if len(elements) != count * dtype.itemsize:
        raise EOFError("the file ends within a tensor")
    return elements


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def persistent_load(self, pid: Any) -> _Storage:  # pickle's own signature
        kind, dtype, key, _location, _count, view = pid
        if kind != "storage" or view is not None or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError("views of storages are not supported")
        return _Storage(key, dtype)


def _rebuild(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_grad_and_hooks: object
) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))
