"""The unit of a GPU that decodes JPEGs, which one process at a time has.

Beside Triton and another model's process, nvJPEG's batched decoding didn't return on an H100 (driver 580.159): its
event never came. Alone on the GPU, or as two processes without Triton, it did. The process that has the unit keeps it
until it ends; the JPEGs of others are decoded by the worker.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from time import monotonic
from typing import Final

AGAIN_SECONDS: Final = 5.0
"""Until the unit is asked for again: whoever had it may have ended, such as an older version of the model."""


class Unit:
    """Of processes that see the same temporary folder: those of one Triton, of one container."""

    def __init__(self, gpu: str) -> None:
        """``gpu`` is its UUID."""
        self._path = Path(tempfile.gettempdir()) / f"shoal-jpeg-unit-{gpu}"
        self._file = -1
        self._asked = float("-inf")

    def take(self) -> bool:
        """Whether it is ours; asks at most every ``AGAIN_SECONDS``."""
        if self._file >= 0:
            return True
        if monotonic() - self._asked < AGAIN_SECONDS:
            return False
        self._asked = monotonic()
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True
