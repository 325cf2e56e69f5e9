"""Keeps logs small while they are written to.

A part writes to its log itself, through a descriptor that it was started with: nothing stands between that could be
slow, full or gone, and block the part. So a log is turned over under its writer: what it holds is copied away, and the
file is emptied. All writers append, and go on at its new end. What a part writes between the last read and the
emptying, some microseconds, is lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from pathlib import Path

LARGEST_BYTES: Final = 8 * 2**20
"""A larger log is turned over."""
KEPT: Final = 2
"""Old files of a log, ``<name>.log.1`` the younger; each has about twice ``LARGEST_BYTES`` at most."""
LOOK_SECONDS: Final = 1.0
_CHUNK_BYTES: Final = 2**18
_CATCH_UP_BYTES: Final = 2**22
"""What may be added to a log while it is copied, and is copied too."""

_log = logging.getLogger(__name__)


async def keep_small(logs: Path) -> None:
    """Looks after all ``<name>.log`` in a folder, until it is cancelled.

    It looks at the sizes, some microseconds a second: a watch would wake us for every line that any part writes.
    """
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await asyncio.to_thread(_look, logs)


def _look(logs: Path) -> None:
    for log in sorted(logs.glob("*.log")):
        try:
            if log.stat().st_size > LARGEST_BYTES:
                turn_over(log)
        except FileNotFoundError:
            continue
        except OSError as error:
            _log.warning("%s can't be turned over: %s", log, error.strerror)


def turn_over(log: Path, largest: int = LARGEST_BYTES) -> bool:
    """Empties ``log`` if it has more than ``largest`` bytes, and says whether.

    Its last ``2 * largest`` become its youngest old file: between two looks it may have grown well beyond ``largest``.
    Where the disk has no room for them, older files go first, and if that isn't enough, they do.

    Raises:
        OSError: it can't be read or written.
    """
    with log.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= largest:
            return False
        fresh = log.with_name(f".{log.name}.turning")
        try:
            if not _copied(file, fresh, 2 * largest):
                for number in range(1, KEPT + 1):
                    old(log, number).unlink(missing_ok=True)
                if not _copied(file, fresh, 2 * largest):
                    _log.warning("%s: no room to keep its %d bytes, which are gone", log, size)
            file.truncate(0)
            age(log, fresh)
        finally:
            fresh.unlink(missing_ok=True)
    return True


def old(log: Path, number: int) -> Path:
    """The old file of that number, 1 being the youngest."""
    return log.with_name(f"{log.name}.{number}")


def age(log: Path, fresh: Path) -> None:
    """Makes ``fresh`` the youngest old file of ``log``; the oldest goes."""
    for number in range(KEPT, 1, -1):
        with suppress(FileNotFoundError):
            old(log, number - 1).replace(old(log, number))
    with suppress(FileNotFoundError):
        fresh.replace(old(log, 1))


def _copied(file: BinaryIO, target: Path, most: int) -> bool:
    """Whether there was room for the last ``most`` bytes of ``file``, from the start of a line, at ``target``."""
    begin = max(os.fstat(file.fileno()).st_size - most, 0)
    file.seek(begin)
    skipped = len(file.readline(_CHUNK_BYTES)) if begin else 0
    try:
        with target.open("wb") as out:
            if begin:
                out.write(b"(%d bytes before this were left out)\n" % (begin + skipped))
            # A writer that is faster than we are doesn't keep us: what it goes on to add is left out.
            left = most + _CATCH_UP_BYTES
            while left > 0 and (chunk := file.read(min(left, _CHUNK_BYTES))):
                out.write(chunk)
                left -= len(chunk)
    except OSError:
        target.unlink(missing_ok=True)
        return False
    return True
