from __future__ import annotations

import threading
from pathlib import Path

from shoal.threads import make_pool


def shown_name() -> str:
    """What the system calls the calling thread."""
    return Path(f"/proc/self/task/{threading.get_native_id()}/comm").read_text().rstrip()


def test_the_system_shows_the_name_of_a_pools_threads() -> None:
    with make_pool(1, "decode") as pool:
        assert pool.submit(shown_name).result() == "decode"


def test_a_long_name_is_cut() -> None:
    with make_pool(1, "infer-efficientnet-lite0") as pool:
        assert pool.submit(shown_name).result() == "infer-efficient"
