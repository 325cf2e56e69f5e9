"""The local side of a synchronised store: a Triton model repository whose models are links.

::

    models/<model>  ->  ../.models.sync/<model>/<digest>/<model>
    .models.sync/<model>/<digest>/<model>/      a set of files that is whole, checked and never altered
    .models.sync/<model>/<digest>/index.json    their checksums
    .models.sync/<model>/<digest>.part/         one that is on its way

Renaming a link over another is the one way to replace a folder in one step, whatever is in it (Kubernetes updates
ConfigMaps like that). The sets lie beside the repository, for Triton takes every folder in it for a model.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from shoal.errors import ConfigurationError
from shoal.modelstore.publishing.manifest import FileEntry
from shoal.runtime import intake
from shoal.runtime.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Mapping

_INDEX = "index.json"
_ENTRIES = TypeAdapter(dict[str, FileEntry])
_PART = ".part"
_MARKER = "synced"


class Synced(BaseModel):
    """What was found when the repository was last brought in line."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    source: str = ""
    """Where models are published."""
    published: int = 0
    """Models there, of every pool."""
    refused: dict[str, str] = {}
    """Those of this repository that can't be had as they are published: why."""


class Mirror:
    """A repository of links and the sets of files that they lead to.

    Args:
        repository: What Triton, or a worker, is given; made if missing.

    Raises:
        ConfigurationError: a folder can't be made.
    """

    def __init__(self, repository: Path) -> None:
        self.repository = repository.absolute()
        self.sets = self.repository.parent / _sets_of(self.repository)
        self._marker = self.sets / _MARKER
        self._previous: dict[str, str] = {}
        for folder in (self.repository, self.sets):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ConfigurationError(f"{folder}: can't be made: {error.strerror}") from error

    @property
    def complete(self) -> bool:
        """Whether a synchronisation came to its end here before."""
        return self._marker.exists()

    def completed(self, synced: Synced) -> None:
        """Notes that one did, and what became of it, for whoever reads the repository."""
        if not self.complete or last_synced(self.repository) != synced:
            replace_file(self._marker, synced.model_dump_json())

    def models(self) -> list[str]:
        """The models that are here through us, sorted."""
        return sorted(path.name for path in self.repository.iterdir() if self.current(path.name))

    def current(self, model: str) -> str | None:
        """The digest of the set that ``model`` leads to; None where it isn't here through us."""
        link = self.repository / model
        if not link.is_symlink():
            return None
        target = Path(os.path.realpath(link)).parent
        return target.name if target.parent == Path(os.path.realpath(self.sets / model)) else None

    def staging(self, model: str, digest: str) -> Path:
        """Where the files of a set are gathered; after a restart what came until then is there."""
        return self.sets / model / f"{digest}{_PART}" / model

    def has(self, model: str, digest: str) -> bool:
        """Whether a set is here, whole."""
        return (self.sets / model / digest / _INDEX).is_file()

    def known(self, model: str) -> dict[str, Path]:
        """sha256 to a file with that content, among the model's whole sets."""
        found = {}
        for index in (self.sets / model).glob(f"*/{_INDEX}"):
            for path, entry in _entries(index).items():
                found[entry.sha256] = index.parent / model / path
        return found

    def accept(self, model: str, digest: str, files: Mapping[str, FileEntry]) -> None:
        """Makes the files gathered in ``staging`` a set."""
        part = self.staging(model, digest).parent
        (part / _INDEX).write_bytes(_ENTRIES.dump_json(dict(files)))
        shutil.rmtree(self.sets / model / digest, ignore_errors=True)
        part.rename(self.sets / model / digest)

    def discard(self, model: str, digest: str) -> None:
        """Forgets what was gathered for a set."""
        shutil.rmtree(self.staging(model, digest).parent, ignore_errors=True)

    def switch(self, model: str, digest: str) -> None:
        """Makes ``model`` lead to a set, in one step.

        Raises:
            ConfigurationError: a folder of that name is in the repository that isn't ours.
        """
        link = self.repository / model
        if link.exists() and not link.is_symlink():
            raise ConfigurationError(f"{link}: is a folder that model-sync didn't make; move it away")
        if (before := self.current(model)) and before != digest:
            self._previous[model] = before
        fresh = self.sets / model / "link"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.path.relpath(self.sets / model / digest / model, self.repository))
        fresh.replace(link)

    def back(self, model: str) -> bool:
        """Makes ``model`` lead to where it did before the last switch; whether that was somewhere else."""
        if not (before := self._previous.pop(model, None)):
            return False
        self.switch(model, before)
        return True

    def withdraw(self, model: str) -> None:
        """Takes ``model`` out of the repository; its sets go with ``sweep``."""
        (self.repository / model).unlink(missing_ok=True)
        self._previous.pop(model, None)

    def sweep(self, model: str) -> None:
        """Deletes all sets of ``model`` but the present one and the one before it.

        That one stays because a reader may be at its files yet.
        """
        keep = {self.current(model), self._previous.get(model)}
        for folder in (self.sets / model).iterdir():
            if folder.is_dir() and folder.name not in keep:
                shutil.rmtree(folder, ignore_errors=True)
        if not keep - {None}:
            shutil.rmtree(self.sets / model, ignore_errors=True)


def last_synced(repository: Path) -> Synced:
    """What model-sync noted of ``repository`` last; nothing where it doesn't keep it."""
    folder = repository.absolute()
    try:
        return Synced.model_validate_json((folder.parent / _sets_of(folder) / _MARKER).read_bytes())
    except (OSError, ValidationError):
        return Synced()


def _sets_of(repository: Path) -> str:
    return f".{repository.name}.sync"


def _entries(index: Path) -> dict[str, FileEntry]:
    try:
        return _ENTRIES.validate_json(intake.read(index, intake.LIST_BYTES))
    except (OSError, ValidationError):
        return {}
