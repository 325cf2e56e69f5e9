"""The files of a model's folder, with their checksums."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from shoal.modelstore.manifest import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def snapshot(folder: Path) -> dict[str, Entry]:
    """Path to entry of every file below ``folder``, sorted; hidden files and folders are work in progress.

    Raises:
        OSError: a file can't be read.
    """
    return {path: entry_of(folder / path) for path in sorted(_paths(folder))}


def entry_of(file: Path) -> Entry:
    """Size and checksum of one file."""
    with file.open("rb") as content:
        checksum = hashlib.file_digest(content, "sha256")
        return Entry(size=content.tell(), sha256=checksum.hexdigest())


def _paths(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            yield relative.as_posix()
