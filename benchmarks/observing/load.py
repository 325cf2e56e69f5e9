"""A closed load that grows: callers that each have one request under way, and more of them from phase to phase."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from shoal.errors import ShoalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from shoal.client import AsyncClient

_REST_SECONDS = 1.0
"""After an error: who is refused comes back, but not at once."""


class Callers:
    """So many at once as ``set`` says. As each has one request, a queue never holds more than there are callers."""

    def __init__(self, client: AsyncClient, model: str, images: Sequence[str]) -> None:
        self._client = client
        self._model = model
        self._images = images
        self._tasks: list[asyncio.Task[None]] = []

    async def set(self, count: int, pause_seconds: float = 0.0) -> None:
        """Ends those that are there; from now on there are ``count``, which rest so long after each answer."""
        await self.end()
        self._tasks = [asyncio.create_task(self._call(number, pause_seconds)) for number in range(count)]

    async def end(self) -> None:
        """Ends all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _call(self, number: int, pause_seconds: float) -> None:
        if pause_seconds:
            await asyncio.sleep(pause_seconds * (number % 7) / 7)  # not in step
        while True:
            number += 1
            try:
                await self._client.classify(self._images[number % len(self._images)], self._model)
            except ShoalError:
                await asyncio.sleep(_REST_SECONDS)
            await asyncio.sleep(pause_seconds)


@asynccontextmanager
async def callers(client: AsyncClient, model: str, images: Sequence[str]) -> AsyncIterator[Callers]:
    """None at first, and none when the block ends."""
    made = Callers(client, model, images)
    try:
        yield made
    finally:
        with suppress(asyncio.CancelledError):
            await made.end()
