"""The slot that one batch's pictures are decoded into, and executed from."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.engine import LoadedModel, Slot
    from shoal.runtime.priority import Priority


class BatchSlot:
    """Asked for when the first picture is here, so that a batch without any holds none. Belongs to one event loop."""

    def __init__(self, loaded: LoadedModel[Any], priority: Priority) -> None:
        self._loaded = loaded
        self._priority = priority
        self._asked: asyncio.Task[Slot] | None = None

    @property
    def is_asked(self) -> bool:
        """Whether it was asked for and not given back."""
        return self._asked is not None

    @property
    def is_here(self) -> bool:
        """Whether it has come, or will never."""
        return self._asked is not None and self._asked.done()

    def result(self) -> Slot:
        """Of one that is here. Raises what kept it from coming."""
        assert self._asked is not None, "it was asked for"
        return self._asked.result()

    def ask(self, come: Callable[[], object]) -> None:
        """Asks for it; ``come`` is called when it is here, unless it was given back before. Once more does nothing."""
        if self._asked is None:
            task = self._ask()
            task.add_done_callback(lambda done: come() if done is self._asked else None)

    async def wait(self) -> Slot:
        """It, once it is here. Raises what kept it from coming."""
        return await (self._asked or self._ask())

    def give_back(self) -> None:
        """Does nothing if there is none."""
        task, self._asked = self._asked, None
        if task is None:
            return
        task.cancel()
        if task.done() and not task.cancelled() and task.exception() is None:
            self._loaded.release(task.result())

    def _ask(self) -> asyncio.Task[Slot]:
        self._asked = asyncio.get_running_loop().create_task(self._loaded.acquire(self._priority))
        return self._asked
