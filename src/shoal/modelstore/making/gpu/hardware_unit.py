"""The unit of a GPU that decodes JPEGs, which one process at a time may use.

Two processes that used it at once soon waited for an event that never came: Triton's or others, whatever streams and
graphs they had (H100, driver 580.159). Through MPS, where they are one to the GPU, they did not; nor with this lock.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_log = logging.getLogger(__name__)
_FOLDER: Final = Path("/dev/shm")  # noqa: S108 - the Python backend can't do without it
PATIENCE_SECONDS: Final = 20.0
"""For one batch, hundreds of times what the slowest takes."""
_LOOK_SECONDS: Final = 1.0


class Unit:
    """Of processes that have the same /dev/shm."""

    def __init__(self, gpu: str, folder: Path = _FOLDER) -> None:
        """``gpu`` is its UUID; the lock is a file in ``folder``."""
        path = folder / f"shoal-jpeg-unit-{gpu}.lock"
        try:
            self._file = os.open(path, os.O_CLOEXEC)
        except FileNotFoundError:
            self._file = os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o644)  # what others made may be locked, too
        self._since = float("inf")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While no other process uses it; the kernel frees it with whoever has it."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._since = monotonic()
        try:
            yield
        finally:
            self._since = float("inf")
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def hangs(self) -> bool:
        """Whether our turn has lasted too long to end."""
        return monotonic() - self._since > PATIENCE_SECONDS

    def watch(self, leave: Callable[[int], object] = os._exit) -> None:
        """Ends the process if the unit doesn't answer: Triton starts another, and nobody waits for ever."""
        threading.Thread(target=self._watch, args=(leave,), name="jpeg-unit", daemon=True).start()

    def _watch(self, leave: Callable[[int], object]) -> None:
        while not self.hangs():
            threading.Event().wait(_LOOK_SECONDS)
        _log.critical("the GPU's JPEG unit hasn't answered for %.0f s; who else uses it?", PATIENCE_SECONDS)
        leave(1)
