"""Files that hold secrets: read only if nobody else can, replaced in one step."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from shoal.errors import ConfigurationError

_OTHERS = 0o077  # the permission bits of group and others


def read(path: Path) -> bytes:
    """The content of ``path``.

    A mounted Kubernetes Secret, known by its link through ``..data``, has the modes that the kubelet sets.

    Raises:
        ConfigurationError: group or others may open it.
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & _OTHERS and not _is_kubernetes_secret(path):
            raise ConfigurationError(f"{path}: mode {mode:04o} lets others read it; run: chmod 600 {path}")
        return file.read()


def replace(path: Path, text: str) -> None:
    """Moves a file with ``text`` into place, on disk by then; mkstemp gives it mode 0600 from its first byte on."""
    descriptor, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _is_kubernetes_secret(path: Path) -> bool:
    return path.is_symlink() and path.readlink().parts[:1] == ("..data",)
