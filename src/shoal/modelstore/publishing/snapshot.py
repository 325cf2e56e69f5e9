"""The files of a model's folder, with their checksums."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError
from shoal.modelstore.publishing.manifest import FileEntry
from shoal.runtime import intake

if TYPE_CHECKING:
    from collections.abc import Iterator


def snapshot(folder: Path) -> dict[str, FileEntry]:
    """Path to entry of every file below ``folder``, sorted; hidden files and folders are work in progress.

    A link to another file of the folder counts as that file.

    Raises:
        ConfigurationError: a link leads out of ``folder`` or to a folder, or something is no file at all: to leave it
            out in silence would be half a model, and to follow it would take what isn't the model's.
        OSError: a file or folder can't be read.
    """
    return {path: entry_of(folder / path) for path in sorted(_paths(folder, folder))}


def entry_of(file: Path) -> FileEntry:
    """Size and checksum of one file."""
    with intake.opened(file) as content:
        checksum = hashlib.file_digest(content, "sha256")
        return FileEntry(size=content.tell(), sha256=checksum.hexdigest())


def _paths(folder: Path, root: Path, above: str = "") -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = f"{above}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _paths(Path(entry.path), root, f"{path}/")
            elif entry.is_symlink():
                _require_inside(Path(entry.path), root)
                yield path
            elif entry.is_file():
                yield path
            else:
                raise ConfigurationError(f"{entry.path}: is a pipe, a socket or a device; take it out of the model")


def _require_inside(link: Path, root: Path) -> None:
    if not intake.is_inside(link, root):
        raise ConfigurationError(
            f"{link}: is a link that leads out of the model's folder; put the file itself there (`cp -L`)"
        )
    if not link.is_file():
        what = "a folder" if link.is_dir() else "nothing"
        raise ConfigurationError(f"{link}: is a link to {what}; put the files themselves there, or take it away")
