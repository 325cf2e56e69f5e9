"""The unit of a GPU that decodes JPEGs, which one process may use, or all under NVIDIA's MPS.

Two processes that used it, also in turn, soon waited for an event that never came, whatever their streams and graphs,
and within Triton or not (H100, driver 580.159). Under MPS they are one to the GPU, and none waited. So without MPS the
first process keeps the unit until it ends, and the JPEGs of others are decoded by the worker.
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
AGAIN_SECONDS: Final = 5.0
"""Until the unit is asked for again: whoever had it may have ended, such as an older version of the model."""
PATIENCE_SECONDS: Final = 20.0
"""For one batch, hundreds of times what the slowest takes."""
_LOOK_SECONDS: Final = 1.0


class Unit:
    """Of processes that have the same /dev/shm."""

    def __init__(self, gpu: str, *, shared: bool, folder: Path = _FOLDER) -> None:
        """Asks for nothing yet.

        Args:
            gpu: Its UUID.
            shared: Whether this process shares the GPU through MPS.
            folder: Of the file that is locked.
        """
        self._path = folder / f"shoal-jpeg-unit-{gpu}"
        self._is_ours = shared
        self._asked = float("-inf")
        self._since = float("inf")

    def take(self) -> bool:
        """Whether we may use it, from now on; asks at most every ``AGAIN_SECONDS``."""
        if not self._is_ours and monotonic() - self._asked >= AGAIN_SECONDS:
            self._asked = monotonic()
            self._is_ours = self._lock()
        return self._is_ours

    @contextmanager
    def used(self) -> Iterator[None]:
        """While it works for us."""
        self._since = monotonic()
        try:
            yield
        finally:
            self._since = float("inf")

    def hangs(self) -> bool:
        """Whether it has worked too long to end."""
        return monotonic() - self._since > PATIENCE_SECONDS

    def watch(self, leave: Callable[[int], object] = os._exit) -> None:
        """Ends the process if the unit doesn't answer: Triton starts another, and nobody waits for ever."""
        threading.Thread(target=self._watch, args=(leave,), name="jpeg-unit", daemon=True).start()

    def _watch(self, leave: Callable[[int], object]) -> None:
        while not self.hangs():
            threading.Event().wait(_LOOK_SECONDS)
        _log.critical("the GPU's JPEG unit hasn't answered for %.0f s; who else uses it?", PATIENCE_SECONDS)
        leave(1)

    def _lock(self) -> bool:
        """The kernel frees it with our process."""
        try:
            file = os.open(self._path, os.O_CLOEXEC)
        except FileNotFoundError:
            file = os.open(self._path, os.O_CREAT | os.O_CLOEXEC, 0o644)  # also other users may lock it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        return True
