"""All parts of a service: started from the inside out, stopped from the outside in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.local.keeper import PartKeeper
from shoal.local.plan import START_ORDER, STOP_ORDER
from shoal.runtime.together import together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
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
            await together(keeper.start() for keeper in self._of(components))
            check(components)

    async def stop(self) -> None:
        """Drains every part, those that take requests first. Safe whatever ``start`` came to."""
        for components in STOP_ORDER:
            await together(keeper.stop() for keeper in self._of(components))

    def kill(self) -> None:
        """Ends every part at once."""
        for keeper in self.keepers:
            keeper.kill()

    def _of(self, components: AbstractSet[Component]) -> list[PartKeeper]:
        return [keeper for keeper in self.keepers if keeper.part.component in components]
