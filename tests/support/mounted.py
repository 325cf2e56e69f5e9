"""A ConfigMap or a Secret as the kubelet mounts it.

Each key is a link through ``..data``, itself a link to a folder with a version's files; an update is one move of that
link, and the old folder goes. See AtomicWriter in Kubernetes' pkg/volume/util/atomic_writer.go.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Mounted:
    """The volume at ``folder``. Give it its first files with ``update``.

    Args:
        folder: Made if need be.
        mode: Of the files.
        group: Of the files, as an ``fsGroup`` sets it. None: ours.
    """

    def __init__(self, folder: Path, *, mode: int = 0o440, group: int | None = None) -> None:
        self._folder = folder
        self._mode = mode
        self._group = group
        self._version = 0
        folder.mkdir(parents=True, exist_ok=True)

    def update(self, files: Mapping[str, str | bytes]) -> None:
        """Swaps all files at once."""
        self._version += 1
        version = self._folder / f"..2026_{self._version}"
        self._write(version, files)
        new, data = self._folder / "..data_tmp", self._folder / "..data"
        old = data.resolve() if data.is_symlink() else None
        new.symlink_to(version.name)
        new.rename(data)
        for name in files:
            if not (self._folder / name).is_symlink():
                (self._folder / name).symlink_to(f"..data/{name}")
        for link in self._folder.iterdir():
            if not link.name.startswith("..") and link.name not in files:
                link.unlink()
        if old is not None:
            shutil.rmtree(old)

    def _write(self, version: Path, files: Mapping[str, str | bytes]) -> None:
        version.mkdir(mode=0o755)
        for name, content in files.items():
            path = version / name
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            path.chmod(self._mode)
        if self._group is not None:
            for path in (version, *version.iterdir()):
                shutil.chown(path, group=self._group)
