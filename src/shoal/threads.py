"""Threads: how many are worth having, and pools whose threads carry a name that the system shows.

Until Python 3.14 a thread's name stays inside Python; ``top -H`` and ``/proc`` show ours. A library's threads inherit
their maker's name.
"""

from __future__ import annotations

import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota: Path = _QUOTA) -> int:
    """Cores that this process may keep busy: by its affinity, and by its container's CPU quota (cgroup v2)."""
    cores = len(os.sched_getaffinity(0))
    try:
        most, period = quota.read_text(encoding="ascii").split()
        return cores if most == "max" else max(1, min(cores, math.ceil(int(most) / int(period))))
    except (OSError, ValueError):
        return cores


def make_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """A pool of up to ``threads``, of which the system shows the first 15 characters of ``name``."""
    return ThreadPoolExecutor(threads, name, initializer=_show, initargs=(name,))


def _show(name: str) -> None:
    with suppress(OSError):  # where there is no such file, it is only a name
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name, encoding="utf-8")
