"""Keeps one part running: a part that ends is started again, after a pause that grows while it keeps ending."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from shoal.errors import ShoalError
from shoal.local.process import describe_exit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shoal.local.plan import Part
    from shoal.local.process import Child

    Launch = Callable[[Part], Awaitable[Child]]


class State(StrEnum):
    """Where a part is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    """It ended and will be started again."""
    DRAINING = "draining"


@dataclass(slots=True)
class BackOff:
    """The pause before each restart: it doubles, and begins anew after a long enough good time."""

    first_seconds: float = 0.2
    longest_seconds: float = 30.0
    good_seconds: float = 60.0
    _pause: float = 0.0
    _restarted: float = float("-inf")

    def next(self, now: float) -> float:
        """The seconds to wait before a restart that is due at ``now`` (seconds, monotonic)."""
        if now - self._restarted > self.good_seconds:
            self._pause = self.first_seconds
        else:
            self._pause = min(2 * self._pause, self.longest_seconds)
        self._restarted = now + self._pause
        return self._pause


class PartKeeper:
    """One part, from its start to its stop.

    Args:
        part: what to run.
        launch: starts it.
        changed: called after each change of ``state``.
        say: tells the user of what went wrong.
        sleep: ``asyncio.sleep``, or a test's own.
    """

    def __init__(
        self,
        part: Part,
        launch: Launch,
        *,
        changed: Callable[[], None],
        say: Callable[[str], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.part = part
        self.state = State.STOPPED
        self.restarts = 0
        self._launch = launch
        self._changed = changed
        self._say = say
        self._sleep = sleep
        self._back_off = BackOff()
        self._child: Child | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The part's process, if it has one now."""
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Starts the part, waits until it is ready and keeps it so from then on.

        Raises:
            ShoalError: it ended or took too long; its log's end is in the text.
        """
        await self._run()
        self._watch = asyncio.create_task(self._keep(), name=f"keep {self.part.name}")

    async def stop(self) -> None:
        """Drains the part; nothing of it is left after that."""
        if self._watch:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        if self._child:
            self._set(State.DRAINING)
            await self._child.stop()
            self._child = None
        self._set(State.STOPPED)

    def kill(self) -> None:
        """Ends the part at once."""
        if self._child:
            self._child.kill()

    async def _run(self) -> None:
        self._set(State.STARTING)
        self._child = await self._launch(self.part)
        self._changed()  # it has a pid now
        await self._child.ready()
        self._set(State.READY)

    async def _keep(self) -> None:
        while self._child:
            code = await self._child.wait()
            self._child = None
            await self._restart(f"{self.part.name} ended with {describe_exit(code)}")

    async def _restart(self, reason: str) -> None:
        while True:
            pause = self._back_off.next(asyncio.get_running_loop().time())
            self._say(f"{reason}; starting it again in {pause:.1f} s")
            self._set(State.WAITING)
            await self._sleep(pause)
            self.restarts += 1
            try:
                await self._run()
            except ShoalError as error:
                reason = str(error)
                await self._discard()
            else:
                self._say(f"{self.part.name} is ready again")
                return

    async def _discard(self) -> None:
        if self._child:
            self._child.kill()
            await self._child.wait()
            self._child = None

    def _set(self, state: State) -> None:
        self.state = state
        self._changed()
