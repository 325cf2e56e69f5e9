"""A lock between processes that share a network: those of one machine, or of one pod's containers.

It is the name of a Unix socket in Linux's abstract namespace (unix(7)): no file is left behind, and the kernel frees it
with the process, however that ends.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LOOK_SECONDS: Final = 0.1
"""How often whoever waits tries again."""


@asynccontextmanager
async def one_at_a_time(name: str) -> AsyncIterator[None]:
    """Waits until no other process of this user holds ``name``."""
    # An address has 107 bytes at most.
    address = f"\0shoal-{os.getuid()}-{hashlib.sha256(name.encode()).hexdigest()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
        while not _bound(lock, address):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(LOOK_SECONDS)
        yield


def _bound(lock: socket.socket, address: str) -> bool:
    try:
        lock.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True
