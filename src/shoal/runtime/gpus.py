"""The GPUs of this machine, as far as a driver tells."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
"""CUDA's environment variable: numbers or names, with commas between, of those that a process may use."""
_SECONDS: Final = 10


def names() -> tuple[str, ...]:
    """Their names; none where there is no driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        done = subprocess.run(
            [program, "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(filter(None, map(str.strip, done.stdout.splitlines()))) if done.returncode == 0 else ()


def usable(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """What ``VISIBLE`` may be set to, for each GPU that this process may use."""
    if (visible := environment.get(VISIBLE)) is not None:
        return tuple(filter(None, map(str.strip, visible.split(","))))
    return tuple(map(str, range(len(names()))))
