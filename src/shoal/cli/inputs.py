"""The pictures that a command is given, as files and folders."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def pictures(named: Sequence[Path]) -> list[Path]:
    """The pictures among ``named``: files as they are, there or not, and what lies in folders, sorted.

    Raises:
        ConfigurationError: there is none, or a folder can't be read.
    """
    found: list[Path] = []
    for path in named:
        if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where it can't tell
            if not os.access(path, os.R_OK | os.X_OK):
                raise ConfigurationError(f"{path}: the folder can't be read: permission denied")
            found += sorted(file for file in path.rglob("*") if file.suffix.lower() in PICTURE_SUFFIXES)
        else:
            found.append(path)
    if not found:
        suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
        raise ConfigurationError(f"no pictures ({suffixes}) in {', '.join(map(str, named))}")
    return found
