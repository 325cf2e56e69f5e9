"""All parts of a service: started from the inside out, stopped from the outside in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shoal.errors import ShoalError
from shoal.local.keeper import PartKeeper
from shoal.local.plan import START_ORDER, STOP_ORDER

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from collections.abc import Set as AbstractSet

    from shoal.local.keeper import Launch
    from shoal.local.plan import Component, Part


class Supervisor:
    """The keepers of a service's parts.

    Args:
        parts: what to run.
        launch: starts one of them.
        changed: called after each change of a part's state.
        say: tells the user of what went wrong.
    """

    def __init__(
        self, parts: Iterable[Part], launch: Launch, *, changed: Callable[[], None], say: Callable[[str], None]
    ) -> None:
        self.keepers = tuple(PartKeeper(part, launch, changed=changed, say=say) for part in parts)

    async def start(self, check: Callable[[AbstractSet[Component]], None] = lambda _: None) -> None:
        """Starts every part; returns once all are ready.

        Args:
            check: Called with the components that are ready now, before those start that need them; may raise
                ShoalError.

        Raises:
            ShoalError: a part didn't become ready. The others run until ``stop``.
        """
        for components in START_ORDER:
            await _together(keeper.start() for keeper in self._of(components))
            check(components)

    async def stop(self) -> None:
        """Drains every part, those that take requests first. Safe whatever ``start`` came to."""
        for components in STOP_ORDER:
            await _together(keeper.stop() for keeper in self._of(components))

    def kill(self) -> None:
        """Ends every part at once."""
        for keeper in self.keepers:
            keeper.kill()

    def _of(self, components: AbstractSet[Component]) -> list[PartKeeper]:
        return [keeper for keeper in self.keepers if keeper.part.component in components]


async def _together(work: Iterable[Coroutine[None, None, None]]) -> None:
    """Runs all; the first ShoalError cancels the rest."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except BaseExceptionGroup as group:
        # Not except*: what is raised in there, Python 3.11's first releases wrap again.
        expected, other = group.split(ShoalError)
        if expected is None or other is not None:
            raise
        error = _first(expected)
    else:
        return
    raise error from None


def _first(group: BaseExceptionGroup[ShoalError]) -> ShoalError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ShoalError)
    return error
