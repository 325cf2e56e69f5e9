from __future__ import annotations

import io
import pickle
import struct
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal.errors import ConfigurationError
from shoal.modelstore.making.torch_legacy import load

MAGIC = 0x1950A86A20F9469CFC6C


class Storage:
    def __init__(self, key: str, array: np.ndarray) -> None:
        self.key, self.array = key, array


class Tensor:
    """Pickles as a torch tensor does; strides count elements."""

    def __init__(self, storage: Storage, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> None:
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, Any]:
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.arguments


class Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Storage):
            return None
        kind = "FloatStorage" if obj.array.dtype == np.float32 else "LongStorage"
        return "storage", getattr(sys.modules["torch"], kind), obj.key, "cpu", obj.array.size, None


@pytest.fixture(autouse=True)
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names that a pickler must be able to look up to write them."""
    package, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind in ("FloatStorage", "LongStorage"):
        setattr(package, kind, type(kind, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2() -> None: ...

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", package)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def checkpoint(tensors: dict[str, Any], *storages: Storage, magic: int = MAGIC) -> bytes:
    file = io.BytesIO()
    for head in (magic, 1001, {"little_endian": True}):
        pickle.dump(head, file, 2)
    Pickler(file, 2).dump(OrderedDict(tensors))
    pickle.dump([storage.key for storage in storages], file, 2)
    for storage in storages:
        file.write(struct.pack("<q", storage.array.size) + storage.array.tobytes())
    return file.getvalue()


def test_tensors_with_strides_and_offsets() -> None:
    floats = Storage("7", np.arange(8, dtype=np.float32))
    count = Storage("9", np.array([5], np.int64))
    data = checkpoint(
        {
            "transposed": Tensor(floats, (2, 3), (1, 2)),
            "shared": Tensor(floats, (2,), (1,), offset=6),
            "scalar": Tensor(count, (), ()),
        },
        floats,
        count,
    )
    tensors = load(io.BytesIO(data), "x.pth")
    assert tensors["transposed"].tolist() == [[0, 2, 4], [1, 3, 5]]
    assert tensors["shared"].tolist() == [6, 7]
    assert (tensors["scalar"].item(), tensors["scalar"].dtype) == (5, np.int64)


def test_a_view_beyond_its_storage_is_refused() -> None:
    floats = Storage("7", np.arange(4, dtype=np.float32))
    with pytest.raises(ConfigurationError, match=r"x\.pth"):
        load(io.BytesIO(checkpoint({"w": Tensor(floats, (3, 3), (3, 1))}, floats)), "x.pth")


@pytest.mark.parametrize(("shape", "offset"), [((1 << 46,), 0), ((4,), 1 << 70)])
def test_a_view_of_impossible_size_is_refused(shape: tuple[int, ...], offset: int) -> None:
    floats = Storage("7", np.arange(4, dtype=np.float32))
    with pytest.raises(ConfigurationError, match=r"x\.pth"):
        load(io.BytesIO(checkpoint({"w": Tensor(floats, shape, (0,), offset=offset)}, floats)), "x.pth")


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, Any]:
        return Path.touch, (self.path,)


def test_no_code_of_the_file_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not allowed"):
        load(io.BytesIO(checkpoint({"w": Evil(tmp_path / "owned")})), "x.pth")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("cut", [0, 5, 60, -1])
def test_a_truncated_file_is_refused(cut: int) -> None:
    floats = Storage("7", np.arange(4, dtype=np.float32))
    data = checkpoint({"w": Tensor(floats, (4,), (1,))}, floats)
    with pytest.raises(ConfigurationError, match=r"x\.pth: not a legacy PyTorch checkpoint"):
        load(io.BytesIO(data[:cut]), "x.pth")


@pytest.mark.parametrize("data", [checkpoint({}, magic=1), b"PK\x03\x04 a zip", pickle.dumps(MAGIC)])
def test_another_format_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigurationError, match="not a legacy PyTorch checkpoint"):
        load(io.BytesIO(data), "x.pth")
