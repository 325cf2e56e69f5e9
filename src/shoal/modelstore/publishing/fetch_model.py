"""Brings the files of a published model into a folder: whole, checked, and never half."""

from __future__ import annotations

import asyncio
import os
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import text_format

from shoal.errors import ConfigurationError
from shoal.modelconfig import pbtxt
from shoal.modelstore import versions
from shoal.modelstore.formats import RUNTIMES
from shoal.modelstore.publishing.manifest import version_of
from shoal.modelstore.publishing.remote import NoSpace, several
from shoal.modelstore.publishing.snapshot import entry_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from shoal.modelstore.publishing.manifest import FileEntry
    from shoal.modelstore.publishing.remote import Progress, Remote

_MODELS = frozenset(Path(runtime.filename).suffix for runtime in RUNTIMES.values())
_RESERVE_BYTES = 2**24
"""What stays free on the disk."""


async def wanted(
    remote: Remote, model: str, published: Collection[int], *, every: bool = False
) -> dict[str, FileEntry]:
    """The files that a store should hold of ``model``.

    config.pbtxt, labels and the like are those of the highest version; of the version folders, those that its
    version_policy serves.

    Args:
        remote: Where they are published.
        model: Its name.
        published: Its versions there; one at least.
        every: All versions, whatever the policy.

    Raises:
        ConfigurationError: a manifest or config.pbtxt is damaged, or the policy serves none of the versions.
        NotFound: an object is missing.
        Unavailable: the store is away.
    """
    newest = await remote.manifest(model, max(published))
    files = dict(newest.shared)
    chosen = sorted(published) if every else await _served(remote, model, published, files[pbtxt.FILE])
    for version in chosen:
        files |= (newest if version == newest.version else await remote.manifest(model, version)).own
    return files


async def _served(remote: Remote, model: str, published: Collection[int], entry: FileEntry) -> list[int]:
    text = await remote.read(model, entry, pbtxt.LARGEST_BYTES)
    try:
        policy = pbtxt.parse(text.decode()).version_policy
    except (UnicodeDecodeError, text_format.ParseError) as error:
        raise ConfigurationError(f"{remote.name}: {pbtxt.FILE} of {model}: {error}") from None
    if chosen := versions.served(policy, sorted(published)):
        return chosen
    there = ", ".join(map(str, sorted(published)))
    raise ConfigurationError(f"{remote.name}: version_policy of {model} serves none of the versions {there}")


async def fetch(
    remote: Remote,
    model: str,
    files: Mapping[str, FileEntry],
    folder: Path,
    *,
    known: Mapping[str, Path],
    progress: Progress,
    most: int | None = None,
) -> None:
    """Makes ``folder`` hold exactly ``files``, each with its checksum.

    A file that is in ``folder`` already, whole, is kept: a fetch that was cut off goes on where it was.

    Args:
        remote: Where they are published.
        model: Whose files.
        files: Path to entry.
        folder: Made if missing. After an error it holds what came until then.
        known: sha256 to a local file with that content, which is linked or copied rather than fetched.
        progress: Told of the bytes.
        most: The bytes that all of them may have; None: as the disk has room for.

    Raises:
        ConfigurationError: a content is damaged, or they are too large.
        NotFound: a content is missing.
        Unavailable: the store is away; ``NoSpace``: the disk is full.
    """
    if most is not None and (size := sum(entry.size for entry in files.values())) > most:
        raise ConfigurationError(f"{model} has {size:,} bytes; model_store.max_model_bytes is {most:,}")
    try:
        missing = await asyncio.to_thread(_prepare, folder, files, known)
    except OSError as error:
        raise NoSpace(f"{folder}: can't be written: {error.strerror}") from error
    progress.expect(sum(entry.size for entry in missing.values()))
    await several(partial(remote.download, model, entry, folder / path, progress) for path, entry in missing.items())


def _prepare(folder: Path, files: Mapping[str, FileEntry], known: Mapping[str, Path]) -> dict[str, FileEntry]:
    """Removes what doesn't belong, links what is known, and answers what is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for present in [path for path in folder.rglob("*") if path.is_file()]:
        if present.relative_to(folder).as_posix() not in files:
            present.unlink()
    missing = {}
    for path, entry in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_file() and entry_of(target) == entry:
            continue
        target.unlink(missing_ok=True)
        if (source := known.get(entry.sha256)) and source.is_file():
            _take(source, target, path)
        else:
            missing[path] = entry
    _check_space(folder, sum(entry.size for entry in missing.values()))
    return missing


def _take(source: Path, target: Path, path: str) -> None:
    """Links ``target`` to ``source``, or copies what may hold a model's weights beside it.

    ONNX's own reader refuses such a file where it has another link. It is in the folder of a version, and no model by
    itself.
    """
    if version_of(path) is None or target.suffix in _MODELS:
        with suppress(OSError):  # another file system, or one without links
            os.link(source.resolve(), target)
            return
    shutil.copyfile(source, target)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed and free < needed + _RESERVE_BYTES:
        raise NoSpace(f"{folder}: {needed:,} bytes are needed, {free:,} are free")
