"""Threads that have no time for anybody."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from shoal.runtime.threads import Threads


@asynccontextmanager
async def occupied(threads: Threads, count: int = 1) -> AsyncIterator[Callable[[], None]]:
    """All ``count`` threads wait until the block ends, or until what it is given is called.

    They are at it when the block begins: a thread that starts late would take another owner's call before this one.
    """
    go_on, begun = threading.Event(), threading.Semaphore(0)

    def wait() -> None:
        begun.release()
        go_on.wait()

    calls = [asyncio.ensure_future(threads.run(wait)) for _ in range(count)]
    try:
        for _ in calls:
            await asyncio.to_thread(begun.acquire)
        yield go_on.set
    finally:
        go_on.set()
        await asyncio.gather(*calls)
