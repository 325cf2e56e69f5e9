"""Reads files that somebody else wrote: regular ones alone, up to a size, and without ever waiting for one.

A pipe would be waited for, a device may have no end, and a file of any size would be held in memory. What is refused
is an ``OSError`` whose ``strerror`` says why, so that whoever reads a file handles one kind of error.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

TEXT_BYTES: Final = 2**20
"""The most of a file that a person writes: a service file, labels, a config.pbtxt, a certificate."""
LIST_BYTES: Final = 2**24
"""The most of a file that grows with what it lists: 50,000 keys, all authorities of the world."""

_KINDS: Final = (
    (stat.S_ISDIR, errno.EISDIR, "is a folder"),
    (stat.S_ISFIFO, errno.EINVAL, "is a pipe"),
    (stat.S_ISSOCK, errno.EINVAL, "is a socket"),
    (stat.S_ISCHR, errno.EINVAL, "is a device"),
    (stat.S_ISBLK, errno.EINVAL, "is a device"),
)


def read(path: Path, most: int = TEXT_BYTES) -> bytes:
    """The content of ``path``, of ``most`` bytes at most.

    Raises:
        OSError: it can't be read, is no regular file, or is larger.
    """
    with opened(path) as file:
        return read_opened(file, path, most)


def read_text(path: Path, most: int = TEXT_BYTES) -> str:
    r"""The same as text in UTF-8, a byte order mark left out; its lines end in ``\n``, also where it has ``\r\n``.

    Raises:
        OSError: as ``read``.
        UnicodeDecodeError: another encoding; ``not_utf8`` says where.
    """
    return read(path, most).decode("utf-8-sig").replace("\r\n", "\n")


def lines(text: str) -> list[str]:
    r"""The lines of ``text``; ``\n`` and ``\r\n`` alone end one.

    ``str.splitlines`` ends lines at eight more characters, U+2028 and U+0085 among them, that are part of a text.
    """
    found = text.replace("\r\n", "\n").split("\n")
    return found[:-1] if found[-1] == "" else found


def not_utf8(error: UnicodeDecodeError) -> str:
    """Where a content stops being UTF-8, in words; no byte of it is quoted, for it may be a secret."""
    line = error.object.count(b"\n", 0, error.start) + 1
    return f"not UTF-8 from byte {error.start} (line {line}) on"


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """``path`` for reading, if it is a regular file, or a link to one.

    Raises:
        OSError: it can't be opened, or is something else.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "its name holds a NUL", str(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        require_regular(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        yield file


def read_opened(file: BinaryIO, path: Path, most: int) -> bytes:
    """The content of what is open already, of ``most`` bytes at most. A size that fits isn't believed: files grow."""
    if os.fstat(file.fileno()).st_size > most or len(content := file.read(most + 1)) > most:
        raise OSError(errno.EFBIG, f"is larger than {most:,} bytes", str(path))
    return content


def require_regular(status: os.stat_result, path: Path) -> None:
    """Raises OSError where ``status`` is that of a pipe, a device, a folder or a socket."""
    if stat.S_ISREG(status.st_mode):
        return
    number, kind = next((number, text) for is_one, number, text in _KINDS if is_one(status.st_mode))
    raise OSError(number, f"{kind}, not a file", str(path))


def expanded(text: str) -> Path:
    """The path that a file names, ``~`` and ``~user`` at its start written out.

    Raises:
        ConfigurationError: there is no such user, or it can't be a path.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ConfigurationError(f"{text}: {Path(text).parts[0]} is no user of this machine") from None
    if "\0" in text:
        raise ConfigurationError(f"{text!r} holds a NUL; it can't be a path")
    return path


def is_inside(path: Path, folder: Path) -> bool:
    """Whether ``path``, its links followed, is in ``folder``; one that leads round in a circle is nowhere."""
    real, root = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([real, root]) == root and not os.path.islink(real)  # noqa: PTH114 - it is a text


def parse_json(content: bytes | str, *, unique: bool = False) -> Any:  # JSON is any tree
    """The tree that ``content`` says.

    Args:
        content: In UTF-8.
        unique: Refuse a name that an object has twice, of which each reader may take another.

    Raises:
        ValueError: it is no JSON, or nested too deep to be read.
    """
    try:
        return json.loads(content, object_pairs_hook=_without_twins if unique else None)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"{twice[:100]!r} is there twice")
    return found
