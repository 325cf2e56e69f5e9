"""The answer to a question that several ask: worked out once, and good for a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class Shared(Generic[T]):
    """One answer for all who ask within ``seconds``; who asks while it is worked out waits for it, too."""

    def __init__(self, work: Callable[[], Coroutine[object, object, T]], seconds: float) -> None:
        self._work = work
        self._seconds = seconds
        self._began = 0.0
        self._answer: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """An answer that was begun at most ``seconds`` ago, or still is worked out."""
        now = asyncio.get_running_loop().time()
        if self._answer is None or (self._answer.done() and now - self._began >= self._seconds):
            self._began = now
            self._answer = asyncio.create_task(self._work())
        return await asyncio.shield(self._answer)
