"""Waiting for files to change."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

_STEP_MILLISECONDS = 100  # changes are gathered until a step without one; watchfiles also wakes up once a step
_GATHER_MILLISECONDS = 300  # at most, so that a folder that never rests is still seen


async def changes(*folders: Path, recursive: bool = False) -> AsyncGenerator[None]:
    """Yields once the watch stands, so that a first reading misses nothing, then after each change below ``folders``.

    Watch a file's folder rather than the file: that sees an atomic replacement and Kubernetes' symlink swap alike.

    Args:
        folders: They must exist.
        recursive: Whether to watch the folders within them too.
    """
    from watchfiles import awatch  # the client's installation comes without it

    watcher = awatch(
        *folders, watch_filter=None, debounce=_GATHER_MILLISECONDS, step=_STEP_MILLISECONDS, recursive=recursive
    )
    pending = asyncio.ensure_future(anext(watcher))
    try:
        await asyncio.sleep(0)  # awatch registers its watch in its first step
        if pending.done():
            pending.result()
        yield
        while True:
            await pending
            pending = asyncio.ensure_future(anext(watcher))
            yield
    finally:
        pending.cancel()
        await asyncio.gather(pending, return_exceptions=True)
        await watcher.aclose()
