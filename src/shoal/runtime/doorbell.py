"""Waking whoever waits for something to change, when it looks itself for what."""

from __future__ import annotations

import asyncio


class Doorbell:
    """Wakes all who wait by then; belongs to one event loop. Look, then wait: a ring in between can't come.

    What ``asyncio.wait`` does for tasks, with a future for who waits and nothing for those who ring.
    """

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def ring(self) -> None:
        """Wakes them."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def rings(self) -> None:
        """Returns at the next ring."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter
