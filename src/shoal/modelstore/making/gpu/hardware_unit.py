"""The unit of a GPU that decodes JPEGs: for all processes under NVIDIA's MPS, else for one that has the GPU to itself.

Without MPS, processes take turns on a GPU, and one that decoded beside another soon waited for an event that never
came: whatever its streams and graphs, within Triton or not, also where the other only computed (H100, driver 580.159).
Under MPS they are one to the GPU, and none waited. Where the unit may not be used, the worker decodes.
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
PATIENCE_SECONDS: Final = 5.0
"""For one batch, a hundred times what the slowest takes."""
_LOOK_SECONDS: Final = 0.5


class Unit:
    """Of processes that have the same /dev/shm. For one thread, beside the one that watches."""

    def __init__(self, gpu: str, *, shared: bool, folder: Path = _FOLDER) -> None:
        """Returns once nobody decodes, so it comes before anything that computes on the GPU.

        Args:
            gpu: Its UUID.
            shared: Whether this process shares the GPU through MPS.
            folder: Of the files that are locked; the kernel frees those with our process.
        """
        self._shared = shared
        self._first, self._others = (_opened(folder / f"shoal-jpeg-unit-{gpu}.{who}") for who in ("first", "others"))
        self._hung = folder / f"shoal-jpeg-unit-{gpu}.hung"
        self._is_first = False
        self._asked = self._since = float("inf")
        if not shared and not self._became_first():
            fcntl.flock(self._others, fcntl.LOCK_SH)

    @property
    def trouble(self) -> str:
        """Why it may not be used now; empty: it may."""
        if self._shared:
            return ""
        if self._hung.exists():
            return f"the GPU's JPEG unit hung; {self._hung} says so until it is removed, or MPS is on"
        if not self._is_first and (monotonic() - self._asked < AGAIN_SECONDS or not self._became_first()):
            return "several models' processes use this GPU, and only under MPS may they decode beside each other"
        return ""

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """While it may work for us, if it may: whether it does."""
        if self.trouble or not (self._shared or _locked(self._others)):
            yield False
            return
        self._since = monotonic()
        try:
            yield True
        finally:
            self._since = float("inf")
            if not self._shared:
                fcntl.flock(self._others, fcntl.LOCK_UN)

    def hangs(self) -> bool:
        """Whether it has worked too long to end."""
        return monotonic() - self._since > PATIENCE_SECONDS

    def watch(self, leave: Callable[[int], object] = os._exit) -> None:
        """Ends the process if the unit doesn't answer: nobody waits, and the worker has the model loaded anew."""
        threading.Thread(target=self._watch, args=(leave,), name="jpeg-unit", daemon=True).start()

    def _watch(self, leave: Callable[[int], object]) -> None:
        while not self.hangs():
            threading.Event().wait(_LOOK_SECONDS)
        if not self._shared:
            self._hung.touch()
        _log.critical("the GPU's JPEG unit hasn't answered for %.0f s: who uses the GPU without MPS?", PATIENCE_SECONDS)
        leave(1)

    def _became_first(self) -> bool:
        self._asked = monotonic()
        self._is_first = _locked(self._first)
        if self._is_first:
            fcntl.flock(self._others, fcntl.LOCK_UN)
        return self._is_first


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o644)  # other users may lock it, too


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
