"""How many pictures a pipeline's process is busy with at once, by priority. What doesn't fit waits, in order.

More in flight than the models can do make each picture slower and none sooner. So there is room for as many as spend
two fifths of their deadlines here: where the engines are the bottleneck, time in flight goes with the number in flight
(Little's law), so each answer tells how many that would have been. The others wait in their batcher's queue, where
owners take turns and refusing costs least; and whoever comes in when others leave comes in company, which makes larger
batches of the first step.

Those who have time enough decide. Whoever hasn't is refused before anything is asked, by its own owner's times
(``times``), so it needs no room. Several processes see the same times, each with the pictures that it has, and so they
share what there is room for.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import TYPE_CHECKING, Final

from shoal.runtime.percentile import percentile
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST: Final = 8
"""Pictures of a priority that may be in all processes together whatever they spend: of a few, time doesn't go with the
number."""
TARGET: Final = 0.4
"""Of a picture's whole deadline: what it may spend here. The rest is for its way and its turn, and for engines
that become slower."""
DECIDES: Final = 0.25
"""The room suits this share of the pictures, those with most time. If it suited more of them, callers with short
deadlines would shrink it for all."""
KEPT: Final = 32
"""Pictures that are looked at, the latest."""
_UNBOUNDED: Final = 2**31
"""By deadlines: whoever has none is bounded by the most alone."""


class Room:
    """For pictures of one priority."""

    def __init__(self, most: Callable[[], int], least: int = LEAST, left: Callable[[], object] = lambda: None) -> None:
        """Prepares.

        Args:
            most: At once, at present, however quick they are.
            least: At once, however slow they are.
            left: Is told when one is here no more.
        """
        self.limit = least
        """At once, by their deadlines. It begins with few, so that what nobody knows yet costs little."""
        self.taken = 0
        self._most = most
        self._least = least
        self._left = left
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._fitting: deque[float] = deque(maxlen=KEPT)

    async def enter(self) -> int:
        """Returns once there is room for one more, which is here then: how many there are with it."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self.serve()
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self.leave()
            raise
        return self.taken

    def leave(self) -> None:
        """One is here no more."""
        self.taken -= 1
        self.serve()
        self._left()

    def spent(self, seconds: float, pictures: int, budget_seconds: float) -> None:
        """One that is still here has its answer.

        Args:
            seconds: That it was here.
            pictures: At once, when it came.
            budget_seconds: All that its caller gave it, its wait elsewhere included.
        """
        at_once = max(pictures, self.taken)  # it shared the engines with those that came later, too
        self._fitting.append(at_once * TARGET * budget_seconds / seconds if seconds > 0 else math.inf)
        fitting = percentile(sorted(self._fitting), 1 - DECIDES) or 0.0
        self.limit = int(min(max(self._least, fitting), _UNBOUNDED))

    def serve(self) -> None:
        """Lets in who may come in now."""
        while self._waiting and self.taken < min(self.limit, self._most()):
            waiter = self._waiting.popleft()
            if not waiter.done():
                self.taken += 1
                waiter.set_result(None)


class Rooms:
    """Of a process. Bulk has what interactive pictures leave, and always some."""

    def __init__(self, most: int, processes: int = 1) -> None:
        """``most``: interactive pictures at once; ``processes``: that run the pipeline."""
        least = max(1, LEAST // processes)
        self._interactive = Room(lambda: most, least, self._left)
        self._bulk = Room(lambda: max(1, most - self._interactive.taken), least)

    def _left(self) -> None:
        self._bulk.serve()

    def of(self, priority: Priority) -> Room:
        """Where a picture of this priority is."""
        return self._bulk if priority is Priority.BULK else self._interactive
