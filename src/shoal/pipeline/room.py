"""How many pictures a pipeline is busy with at once.

More in flight than the models can do make each picture slower and none sooner, until they are late after their first
steps, whose work is then lost. So the limit follows the pictures' own deadlines: where the engines are the bottleneck,
time in flight goes with the number in flight (Little's law), and one step brings it to where it should be. What doesn't
fit waits in its batcher's queue, where it can be refused for nothing.
"""

from __future__ import annotations

import math
from statistics import median
from typing import Final

from shoal.runtime.doorbell import Doorbell

LEAST: Final = 8
"""Pictures in flight that are always allowed."""
TARGET: Final = 0.5
"""Of a picture's whole deadline: what it may spend here. The rest is for its way and its turn."""
WINDOW: Final = 16
"""Pictures after which the limit is looked at anew."""
_SLACK: Final = 0.8
_GROWTH: Final = 1.25


class Room:
    """Counts pictures in flight, and keeps batches' permits back while there are too many."""

    def __init__(self, most: int) -> None:
        """``most``: in flight at once, however quick they are."""
        self.limit = most
        """Pictures at once, at present."""
        self._most = most
        self._taken = 0
        self._left = Doorbell()
        self._spent: list[float] = []
        self._was_full = False

    def take(self) -> None:
        """One more is here."""
        self._taken += 1
        self._was_full = self._was_full or self._taken >= self.limit

    def leave(self, seconds: float | None = None, budget_seconds: float = math.inf) -> None:
        """One has its answer.

        Args:
            seconds: That it was in flight; None: nothing was asked for it, and it says nothing.
            budget_seconds: All that its caller gave it.
        """
        self._taken -= 1
        self._left.ring()
        if seconds is None:
            return
        self._spent.append(seconds / budget_seconds if budget_seconds > 0 else 1.0)
        if len(self._spent) >= WINDOW:
            self._adapt(median(self._spent))
            self._spent, self._was_full = [], self._taken >= self.limit

    async def wait(self) -> None:
        """Returns once another batch may come."""
        while self._taken >= self.limit:
            await self._left.rings()

    def _adapt(self, spent: float) -> None:
        """``spent``: of its budget by a picture in the middle, so nobody's short deadlines alone decide for all."""
        if spent > TARGET:
            wanted = self.limit * TARGET / spent
        elif spent < _SLACK * TARGET and self._was_full:
            wanted = math.ceil(self.limit * _GROWTH)
        else:
            return
        self.limit = min(self._most, max(LEAST, int(wanted)))
