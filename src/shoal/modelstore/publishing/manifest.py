"""What a published version of a model consists of, and where an object store has it.

::

    manifests/<model>/<version>.json    the files of a version: path, size, sha256. Its arrival publishes the version
    files/<model>/<sha256>              their contents, never altered

A name that is its content's checksum can't hold half of one version and half of another, whoever pushes at the same
time. The files come first and the manifest last, in one PUT, so whatever a manifest names is there.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shoal.errors import ConfigurationError
from shoal.modelconfig.pbtxt import FILE
from shoal.runtime import intake
from shoal.service.section import Name

if TYPE_CHECKING:
    from collections.abc import Mapping

MANIFESTS = "manifests/"
MAX_MANIFEST_BYTES = 2**20
_MANIFEST_KEY = re.compile(rf"{MANIFESTS}(?P<model>[^/]+)/(?P<version>[1-9]\d{{0,8}})\.json")
_LARGEST_BYTES = 2**50
_SHOWN = 100
"""Characters of a name, in a message."""
_VERSION = re.compile(r"[1-9]\d*")


_LONGEST_PART_BYTES = 200
_LONGEST_PATH_BYTES = 1000
"""Less than the 255 and 4,095 that Linux takes: what is on its way has a longer name, and lies deeper."""


def _plain_path(path: str) -> str:
    parts = path.split("/")
    if any(part.startswith(".") or not part.isprintable() for part in parts) or not all(parts) or "\\" in path:
        raise ValueError("must be a relative path without hidden parts")
    if len(path.encode()) > _LONGEST_PATH_BYTES or any(len(part.encode()) > _LONGEST_PART_BYTES for part in parts):
        raise ValueError(f"is too long: {_LONGEST_PART_BYTES} bytes a name and {_LONGEST_PATH_BYTES} in all at most")
    return path


def _distinct(files: dict[str, FileEntry]) -> dict[str, FileEntry]:
    """Raises ValueError where two paths can't both be files of one folder, on some system or other."""
    folded: dict[str, str] = {}
    for path in files:
        other = folded.setdefault(unicodedata.normalize("NFC", path).casefold(), path)
        if other != path:
            raise ValueError(f"{other!r} and {path!r} are the same name where upper and lower case are one")
    for path in files:
        for parent in PurePosixPath(path).parents:
            if unicodedata.normalize("NFC", str(parent)).casefold() in folded:
                raise ValueError(f"names {path} in the folder {parent}, which is a file")
    return files


FilePath = Annotated[str, AfterValidator(_plain_path)]
"""Relative to the model's folder, such as ``1/model.onnx``."""


class FileEntry(BaseModel):
    """One file's content."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    size: int = Field(ge=0, le=_LARGEST_BYTES)
    """Bytes."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """One version of a model: the files of its folder, and those that all versions share, as pushed with it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal[1] = 1
    model: Name
    version: int = Field(ge=1)
    published: str
    """When, in UTC, ISO 8601; for people, and so that a second push of the same files is seen as one."""
    files: Annotated[dict[FilePath, FileEntry], AfterValidator(_distinct)]

    @property
    def content(self) -> bytes:
        """The JSON that is published."""
        return self.model_dump_json(indent=1).encode()

    @property
    def shared(self) -> dict[str, FileEntry]:
        """config.pbtxt, labels and whatever else lies beside the version folders."""
        return {path: entry for path, entry in self.files.items() if version_of(path) is None}

    @property
    def own(self) -> dict[str, FileEntry]:
        """The files of the version's folder."""
        return {path: entry for path, entry in self.files.items() if version_of(path) == self.version}


def version_of(path: str) -> int | None:
    """The version whose folder ``path`` is in; None for a shared file."""
    folder, slash, _ = path.partition("/")
    return int(folder) if slash and _VERSION.fullmatch(folder) else None


def manifest_key(model: str, version: int) -> str:
    """Where the manifest of a version is."""
    return f"{MANIFESTS}{model}/{version}.json"


def file_key(model: str, sha256: str) -> str:
    """Where a content is."""
    return f"{files_prefix(model)}{sha256}"


def files_prefix(model: str) -> str:
    """What the keys of all contents of a model begin with."""
    return f"files/{model}/"


def parse_key(key: str) -> tuple[str, int] | None:
    """Model and version of a manifest's key; None for any other object."""
    match = _MANIFEST_KEY.fullmatch(key)
    if match is None or not _is_name(match["model"]):
        return None
    return match["model"], int(match["version"])


def parse(content: bytes, model: str, version: int) -> Manifest:
    """Reads the manifest of a version.

    Raises:
        ConfigurationError: it isn't one, or another version's.
    """
    key = manifest_key(model, version)
    try:
        manifest = Manifest.model_validate(intake.parse_json(content, unique=True))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(_short, first["loc"]))
        raise ConfigurationError(f"{key}: not a manifest: {place + ': ' if place else ''}{first['msg']}") from None
    except ValueError as error:
        raise ConfigurationError(f"{key}: not a manifest: {error}") from None
    if (manifest.model, manifest.version) != (model, version):
        raise ConfigurationError(f"{key}: is the manifest of {manifest.model} version {manifest.version}")
    strays = [path for path in manifest.files if version_of(path) not in {None, version}]
    if strays or FILE not in manifest.files or not manifest.own:
        reason = f"names {strays[0]}" if strays else f"lacks {FILE}, or a file of the version"
        raise ConfigurationError(f"{key}: {reason}")
    return manifest


def digest(files: Mapping[str, FileEntry]) -> str:
    """Names a set of files: the same for the same paths and contents, 16 hexadecimal digits."""
    listed = sorted((path, entry.sha256) for path, entry in files.items())
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:16]


def _short(part: object) -> str:
    text = str(part)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _is_name(text: str) -> bool:
    try:
        TypeAdapter(Name).validate_python(text)
    except ValidationError:
        return False
    return True
