"""An event loop whose time passes where nobody has anything to do: what waits for seconds takes none."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

from shoal.simulate.events import Events

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock begins at 0 s. It does no I/O."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self.now = 0.0
        super().__init__(_Waiting(self))

    def time(self) -> float:
        """Virtual seconds."""
        return self.now


class _Waiting(selectors.DefaultSelector):
    """Where a loop would wait, its time passes."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everybody waits, and for nothing that will come")
        self._loop.now += max(0.0, timeout)
        return []


class LoopEvents(Events):
    """The simulator's time is the loop's: one drives both what awaits and what is called back."""

    def __init__(self, loop: VirtualLoop) -> None:
        """Nothing happens yet."""
        super().__init__()
        self._loop = loop

    @property  # type: ignore[override]
    def time(self) -> float:
        """Virtual seconds."""
        return self._loop.now

    @time.setter
    def time(self, _: float) -> None:
        """It is the loop's."""

    def at(self, time: float, call: Callable[..., object], *arguments: object) -> None:
        """As ``Events.at``."""
        if time < float("inf"):
            self._loop.call_at(time, call, *arguments)


def play(main: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    """Runs it to its end; what it leaves running is cancelled."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(main(loop))
    finally:
        loop.run_until_complete(_cancel(asyncio.all_tasks(loop)))
        loop.close()


async def _cancel(tasks: set[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
