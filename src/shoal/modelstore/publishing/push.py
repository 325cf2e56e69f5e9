"""Publishes a model of a local store: contents first, manifests last."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from pydantic import ValidationError

from shoal.errors import ConfigurationError, NotFound
from shoal.modelstore import repository
from shoal.modelstore.check import check_folder
from shoal.modelstore.publishing.manifest import MAX_MANIFEST_BYTES, Manifest, version_of
from shoal.modelstore.publishing.remote import several
from shoal.modelstore.publishing.snapshot import snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from shoal.modelstore.publishing.manifest import FileEntry
    from shoal.modelstore.publishing.remote import Progress, Remote


async def push(store: Path, model: str, remote: Remote, progress: Progress, *, again: bool = False) -> list[int]:
    """Publishes every version of ``model`` that is in ``store``.

    What is there with the same checksum isn't sent again, so a push that was cut off goes on where it was.

    Args:
        store: The local store.
        model: A model of it.
        remote: Where it goes.
        progress: Told of the bytes.
        again: Send every file and manifest, whatever is there: it mends a damaged upload.

    Returns:
        The versions that are published now and weren't before, or were otherwise; empty where nothing was to do.

    Raises:
        NotFound: no such model, or bucket.
        ConfigurationError: the model has faults, changed meanwhile, or the store refuses the credentials.
        Unavailable: the store is away.
    """
    if model not in repository.names(store):
        raise NotFound(f"model {model!r} is not in {store}; `shoal model list` shows what is")
    folder = store / model
    report = await asyncio.to_thread(check_folder, folder)
    if report.errors:
        raise ConfigurationError("\n".join(map(str, report.errors)))
    try:
        files = await asyncio.to_thread(snapshot, folder)
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: can't be read: {error.strerror}") from error
    made = manifests(model, files)
    if too_long := [one for one in made if len(one.content) > MAX_MANIFEST_BYTES]:
        raise ConfigurationError(
            f"{model}: version {too_long[0].version} has {len(too_long[0].files):,} files, whose list is over "
            f"{MAX_MANIFEST_BYTES:,} bytes; pack them"
        )
    await _upload(folder, model, files, remote, progress, again=again)
    return [one.version for one in made if await _publish(one, remote, again=again)]


def manifests(model: str, files: Mapping[str, FileEntry]) -> list[Manifest]:
    """A manifest a version, lowest first.

    Raises:
        ConfigurationError: a file's name can't be published.
    """
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    shared = {path: entry for path, entry in files.items() if version_of(path) is None}
    versions = sorted({version for path in files if (version := version_of(path)) is not None})
    try:
        return [
            Manifest(
                model=model,
                version=version,
                published=now,
                files=shared | {path: entry for path, entry in files.items() if version_of(path) == version},
            )
            for version in versions
        ]
    except ValidationError as error:
        first = error.errors()[0]
        place = first["loc"][1:2]  # behind "files": the path, where one alone is meant
        told = ": ".join([model, *map(str, place), first["msg"].removeprefix("Value error, ")])
        raise ConfigurationError(f"{told}; rename it") from None


async def _upload(
    folder: Path, model: str, files: Mapping[str, FileEntry], remote: Remote, progress: Progress, *, again: bool
) -> None:
    present = {} if again else await remote.contents(model)
    missing = {entry.sha256: path for path, entry in files.items() if present.get(entry.sha256) != entry.size}
    progress.expect(sum(files[path].size for path in missing.values()))
    await several(partial(remote.upload, model, folder / path, files[path], progress) for path in missing.values())


async def _publish(made: Manifest, remote: Remote, *, again: bool) -> bool:
    if not again:
        try:
            if (await remote.manifest(made.model, made.version)).files == made.files:
                return False
        except (NotFound, ConfigurationError):
            pass  # none yet, or a damaged one
    await remote.publish(made)
    return True
