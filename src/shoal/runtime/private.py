"""Files that hold secrets: read only if nobody else can."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError
from shoal.runtime import intake

if TYPE_CHECKING:
    from pathlib import Path

_NOT_OURS = 0o077  # the permission bits of group and others
_BEYOND_GROUP_READ = 0o037


def read(path: Path, most: int = intake.TEXT_BYTES) -> bytes:
    """The content of ``path``, of ``most`` bytes at most.

    Kubernetes hands a Secret to a pod in two ways that are private enough. With an ``fsGroup`` its files are another
    user's, and we read them through our group alone. Without, they have the modes that the kubelet sets, and are known
    by their link through ``..data``.

    Raises:
        ConfigurationError: group or others may open it.
        OSError: it can't be read, is no regular file, or is larger.
    """
    with intake.opened(path) as file:
        status = os.fstat(file.fileno())
        if status.st_mode & _NOT_OURS and not _is_lent(status) and not _is_kubernetes_secret(path):
            mode = stat.S_IMODE(status.st_mode)
            raise ConfigurationError(f"{path}: mode {mode:04o} lets others read it; run: chmod 600 {path}")
        return intake.read_opened(file, path, most)


def _is_lent(status: os.stat_result) -> bool:
    """Whether the file is somebody else's, who lets our group read it and nobody else."""
    return status.st_uid != os.geteuid() and not status.st_mode & _BEYOND_GROUP_READ


def _is_kubernetes_secret(path: Path) -> bool:
    return path.is_symlink() and path.readlink().parts[:1] == ("..data",)
