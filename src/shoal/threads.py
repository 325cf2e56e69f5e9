"""Thread pools whose threads carry a name that the system shows (``top -H``, ``/proc``).

Until Python 3.14 a thread's name stays inside Python. A library's threads inherit their maker's name.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path


def make_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """A pool of up to ``threads``, of which the system shows the first 15 characters of ``name``."""
    return ThreadPoolExecutor(threads, name, initializer=_show, initargs=(name,))


def _show(name: str) -> None:
    with suppress(OSError):  # where there is no such file, it is only a name
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name, encoding="utf-8")
