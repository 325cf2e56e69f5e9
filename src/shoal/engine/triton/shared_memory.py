"""POSIX shared memory that an inference server reads in place, and that nobody has to clean up by hand.

A region is a file in /dev/shm which its maker keeps locked. The kernel frees the lock with the process, however it
ends and in whatever container it was: so an unlocked region is a dead worker's, and the next one removes it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

DEVICE = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory is
_PREFIX = "shoal-slot-"
_STEP_BYTES: Final = 4 * 2**20
"""By so much regions grow at least."""


class Region:
    """Memory of one process that others may map by ``name``."""

    def __init__(self, size: int, device: Path = DEVICE, *, reserved: int | None = None) -> None:
        """Makes ``size`` bytes of zeros, readable by processes of the same user.

        Args:
            size: That may be used, at most.
            device: Where.
            reserved: Of them that are there from the start; more after ``reserve``. None: all.

        Raises:
            OSError: there is no such memory here, or not enough of it.
        """
        self.size = size
        self._reserved = size if reserved is None else reserved
        self._path, self._file = _create(device)
        try:
            os.posix_fallocate(self._file, 0, self._reserved)  # or a full device would end us with SIGBUS, later
            os.ftruncate(self._file, size)
            self.memory = mmap.mmap(self._file, size)
        except OSError:
            self.close()
            raise

    @property
    def name(self) -> str:
        """Without the leading slash of shm_open(3)."""
        return self._path.name

    def reserve(self, size: int) -> bool:
        """Whether the first ``size`` bytes may be used, now that they are asked for.

        Half of the device stays free: there the server has its own copies of what it works on.
        """
        if size <= self._reserved:
            return True
        if size > self.size or self._file < 0:
            return False
        size = min(self.size, max(size, self._reserved + _STEP_BYTES))
        more, device = size - self._reserved, os.fstatvfs(self._file)
        if (device.f_bavail - device.f_blocks / 2) * device.f_frsize < more:
            return False
        try:
            os.posix_fallocate(self._file, self._reserved, more)
        except OSError:  # somebody else was faster
            return False
        self._reserved = size
        return True

    def close(self) -> None:
        """Takes the name away. The memory itself lives until its last user is gone."""
        if self._file >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1


def sweep(device: Path = DEVICE) -> int:
    """Removes the regions of processes that are gone; how many those were."""
    removed = 0
    for path in device.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, or gone meanwhile
            removed += _remove_unlocked(path)
    return removed


def is_removed(name: str, device: Path = DEVICE) -> bool:
    """Whether ``name``, which a server on this ``device`` knows, is that of a region that was removed."""
    return name.startswith(_PREFIX) and not (device / name).exists()


def _remove_unlocked(path: Path) -> bool:
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path.unlink()
        return True


def _create(device: Path) -> tuple[Path, int]:
    """A new locked file, and its descriptor."""
    while True:
        path = device / f"{_PREFIX}{secrets.token_hex(8)}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink:
            return path, file
        os.close(file)  # somebody swept it before it was locked
