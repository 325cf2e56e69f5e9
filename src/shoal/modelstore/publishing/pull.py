"""Brings published models into a local store, each whole or not at all."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError
from shoal.modelstore.check import check_folder
from shoal.modelstore.making.build import refuse_link, replace_folder
from shoal.modelstore.publishing.fetch_model import fetch, wanted
from shoal.modelstore.publishing.lock import alone
from shoal.modelstore.publishing.snapshot import snapshot

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from shoal.modelstore.publishing.manifest import FileEntry
    from shoal.modelstore.publishing.remote import Progress, Remote


async def pull(
    remote: Remote,
    model: str,
    published: Collection[int],
    store: Path,
    progress: Progress,
    *,
    every: bool = False,
    force: bool = False,
) -> bool:
    """Brings ``model`` into ``store``; what is there with the same checksum isn't fetched again.

    Args:
        remote: Where it is published.
        model: Its name.
        published: Its versions there.
        store: The local store; made if missing.
        progress: Told of the bytes.
        every: All versions; else those that its version_policy serves.
        force: Make the model exactly what is published. Else versions that are only here stay, and a file that
            differs is an error.

    Returns:
        Whether something changed.

    Raises:
        ConfigurationError: what is published is damaged or faulty, or a file here differs.
        NotFound, Unavailable: see ``fetch``.
    """
    refuse_link(store / model)
    files = await wanted(remote, model, published, every=every)
    target, scratch = store / model, store / f".{model}.pull"
    with alone(store / f".{model}.lock", "another pull"):
        present = await asyncio.to_thread(_present, target, force=force)
        final = files if force else _merged(target, present, files)
        if final == present:
            return False
        known = {entry.sha256: target / path for path, entry in present.items()}
        await fetch(remote, model, final, scratch / model, known=known, progress=progress)
        await asyncio.to_thread(_install, scratch / model, target)
        shutil.rmtree(scratch)
    return True


def _present(target: Path, *, force: bool) -> dict[str, FileEntry]:
    """What is here already; with ``force``, nothing where that can't be told: it is replaced anyway."""
    try:
        return snapshot(target) if target.is_dir() else {}
    except ConfigurationError:
        if force:
            return {}
        raise


def _merged(target: Path, present: Mapping[str, FileEntry], files: Mapping[str, FileEntry]) -> dict[str, FileEntry]:
    for path, entry in files.items():
        if present.get(path, entry) != entry:
            raise ConfigurationError(f"{target / path} differs from what is published; replace the model with --force")
    return {**present, **files}


def _install(folder: Path, target: Path) -> None:
    report = check_folder(folder)
    if report.errors:
        shutil.rmtree(folder)
        raise ConfigurationError(
            "\n".join(f"{target.name}: {fault.field or fault.file.name}: {fault.message}" for fault in report.errors)
        )
    if target.exists():
        replace_folder(folder, target)
    else:
        folder.rename(target)
