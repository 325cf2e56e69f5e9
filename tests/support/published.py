"""A store of published models in memory, and what tests do to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from obstore.store import MemoryStore

from shoal.modelstore.publishing.manifest import file_key
from shoal.modelstore.publishing.push import push
from shoal.modelstore.publishing.remote import Remote
from shoal.modelstore.publishing.snapshot import entry_of
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from pathlib import Path


class Silent:
    """A ``shoal.modelstore.publishing.remote.Progress`` that shows nothing."""

    def expect(self, size: int) -> None: ...

    def advance(self, size: int) -> None: ...


class Bucket:
    """An object store and the local store that is pushed to it."""

    def __init__(self, local: Path) -> None:
        self.local = local
        self.objects = MemoryStore()
        self.remote = Remote(self.objects, "memory://models")

    async def push(self, model: str = "tiny", *, again: bool = False) -> list[int]:
        return await push(self.local, model, self.remote, Silent(), again=again)

    async def publish(self, version: int = 1, model: str = "tiny") -> None:
        """Adds a version, whose graph is its own, and pushes it."""
        add_tiny_classifier(self.local, model, version=version)
        file = self.local / model / str(version) / "model.onnx"
        proto = onnx_with_doc(file.read_bytes(), f"version {version}")
        file.write_bytes(proto)
        await self.push(model)

    def keys(self, prefix: str = "") -> list[str]:
        return sorted(meta["path"] for meta in self.objects.list(prefix).collect())

    def content_of(self, file: str) -> str:
        """The key of the content of ``<model>/<path>``."""
        return file_key(file.partition("/")[0], entry_of(self.local / file).sha256)


def onnx_with_doc(content: bytes, text: str) -> bytes:
    """The same graph in other bytes."""
    model = onnx.load_from_string(content)
    model.doc_string = text
    serialized: bytes = model.SerializeToString()
    return serialized
