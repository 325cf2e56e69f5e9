"""Whose batch is handed over next, to an engine or a function that runs so many at once.

A batch with an interactive item goes before those that are bulk alone, but for bulk's share of turns
(``shoal.runtime.precedence``), to which the bulk items count that ride in interactive batches. Bulk batches take free
instances only, so an interactive one waits for none but those that execute. Interactive batches may be handed over
ahead of that, which hides an engine's round trip.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING

from shoal.errors import DeadlineExceeded
from shoal.runtime.precedence import Precedence
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Order:
    """Who may begin: no clock, no event loop. Those who wait are numbers, first come, first served in a priority."""

    def __init__(self, instances: int, ahead: int) -> None:
        """Prepares.

        Args:
            instances: Batches that execute at once.
            ahead: Interactive batches that may be handed over besides, to begin when one of those has ended.
        """
        self._instances = instances
        self._ahead = ahead
        self._out: Counter[Priority] = Counter()
        self._waiting: dict[Priority, OrderedDict[int, float]] = {priority: OrderedDict() for priority in Priority}
        """And which part of each is bulk."""
        self._precedence = Precedence()

    def ask(self, number: int, priority: Priority, riding: float = 0.0) -> None:
        """One more waits; ``riding`` is which part of its items is bulk, where it is interactive."""
        self._waiting[priority][number] = riding

    def leave(self, number: int, priority: Priority) -> bool:
        """One waits no longer; whether it did."""
        return self._waiting[priority].pop(number, None) is not None

    def end(self, priority: Priority) -> None:
        """One that began has ended."""
        self._out[priority] -= 1

    def waiting(self, priority: Priority) -> int:
        """How many wait."""
        return len(self._waiting[priority])

    def begin(self) -> int | None:
        """Who begins now; None: nobody may, or nobody waits. Ask again until then."""
        waits = {priority: bool(waiting) for priority, waiting in self._waiting.items()}
        # Bulk that couldn't begin in any case, since all instances have bulk, is passed over by nobody.
        could = waits[Priority.BULK] and self._out[Priority.BULK] < self._instances
        turn = self._precedence.next(interactive=waits[Priority.INTERACTIVE], bulk=could)
        if turn is None or self._out.total() >= self._limit(turn):
            return None
        number, riding = self._waiting[turn].popitem(last=False)
        self._precedence.had(turn, bulk_waits=could, riding=riding)
        self._out[turn] += 1
        return number

    def _limit(self, turn: Priority) -> int:
        """Batches handed over at once, before one of ``turn``.

        Bulk's share is handed over as interactive ones are: else these, which come ahead of every end, would leave no
        free instance to it.
        """
        bulk_alone = turn is Priority.BULK and not self._precedence.bulk_is_due
        return self._instances if bulk_alone else self._instances + self._ahead


class Turns:
    """``Order`` for one event loop."""

    def __init__(self, instances: int, ahead: int = 0) -> None:
        """Prepares; see ``Order``."""
        self._order = Order(instances, ahead)
        self._waiters: dict[int, asyncio.Future[None]] = {}
        self._asked = 0

    async def begin(self, priority: Priority, deadline: float = math.inf, riding: float = 0.0) -> None:
        """Waits for a turn, which lasts until ``end``.

        Args:
            priority: The batch's.
            deadline: Seconds of ``time.monotonic`` until which it is worth having one.
            riding: Which part of the batch is bulk, where it is interactive.

        Raises:
            DeadlineExceeded: it passed.
        """
        self._asked += 1
        number, ready = self._asked, asyncio.get_running_loop().create_future()
        self._waiters[number] = ready
        self._order.ask(number, priority, riding)
        self._serve()
        try:
            if not ready.done():
                async with asyncio.timeout(None if math.isinf(deadline) else deadline - monotonic()):
                    await ready
        except BaseException as error:
            self._withdraw(number, priority)
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded("the deadline passed before the engine was free") from None
            raise

    def waiting(self, priority: Priority) -> int:
        """How many wait."""
        return self._order.waiting(priority)

    def end(self, priority: Priority) -> None:
        """A turn is over."""
        self._order.end(priority)
        self._serve()

    @asynccontextmanager
    async def turn(self, priority: Priority, deadline: float = math.inf, riding: float = 0.0) -> AsyncIterator[None]:
        """From ``begin`` to ``end``."""
        await self.begin(priority, deadline, riding)
        try:
            yield
        finally:
            self.end(priority)

    def _withdraw(self, number: int, priority: Priority) -> None:
        """One that leaves may have been granted its turn in the same moment."""
        if self._order.leave(number, priority):
            del self._waiters[number]
            self._serve()
        else:
            self.end(priority)

    def _serve(self) -> None:
        while (number := self._order.begin()) is not None:
            ready = self._waiters.pop(number)
            if not ready.done():
                ready.set_result(None)
