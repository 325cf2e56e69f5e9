"""What there is no time or no place for: which requests are refused, and what they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from shoal.batcher.level import DEADLINE
from shoal.batching.fair_queue import Queued
from shoal.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shoal.batcher.level import Level
    from shoal.batcher.workload import Workload
    from shoal.runtime.priority import Priority

Request = TypeVar("Request", bound=Queued)


class Refusals(Generic[Request]):
    """Takes out of the queues what can't be served, each with the error that its caller gets."""

    def __init__(self, interactive: Level[Any, Request], bulk: Level[Any, Request], work: Workload[Any]) -> None:
        """Looks at both levels, and at what the workers have to do."""
        self._interactive = interactive
        self._bulk = bulk
        self._work = work

    def hopeless(self, now: float, requests: Sequence[Request]) -> Iterator[tuple[Request, Overloaded]]:
        """Those of the ``requests``, which have just come, that can't be answered within their deadlines."""
        longest = self._wait(self._bulk, len(self._bulk.queue) - 1)
        if not longest or now + longest <= min(map(DEADLINE, requests)):
            return
        of: dict[tuple[Priority, str], list[Request]] = {}
        for request in requests:
            if request in self._level(request).queue:
                of.setdefault((request.priority, request.owner), []).append(request)
        for theirs in of.values():
            yield from self._too_late(now, self._level(theirs[0]), theirs)

    def surplus(self, limit: int, newcomer: str) -> Iterator[tuple[Request, Overloaded]]:
        """What a full queue has no room for: bulk requests first, and of those the newest of whoever has most.

        Args:
            limit: Requests that may wait, suspects included.
            newcomer: Whose request has just come: a tie is at the cost of this owner.
        """
        for level in (self._bulk, self._interactive):
            surplus = self._bulk.waiting + self._interactive.waiting - limit
            if surplus <= 0 or not level.queue:
                continue
            wait = self._wait(level, level.queue.ahead_of(level.queue.waiting_of(newcomer) or len(level.queue)))
            text = f"the queue is full ({limit} requests wait); try again later"
            for victim in level.queue.pop_newest_of_longest(newcomer, surplus):
                yield victim, Overloaded(text, retry_after_seconds=wait or None)

    def _too_late(
        self, now: float, level: Level[Any, Request], newest: Sequence[Request]
    ) -> Iterator[tuple[Request, Overloaded]]:
        """Those of one owner's newest requests that can't be answered in time if the others are kept."""
        queue, owner = level.queue, newest[0].owner
        place = queue.waiting_of(owner) - len(newest)
        ahead: float = queue.ahead_of(place + 1)
        step = (queue.ahead_of(place + len(newest)) - ahead) / max(1, len(newest) - 1)
        for request in newest:
            wait = self._wait(level, ahead)
            if now + wait <= request.deadline:
                ahead += step
            else:
                queue.discard(request)
                text = f"the deadline can't be met: about {wait:.1f} s of work are ahead; try again later"
                yield request, Overloaded(text, retry_after_seconds=wait)

    def _wait(self, level: Level[Any, Request], ahead: float) -> float:
        """Seconds until a request has its answer, with so many of its level ahead; 0 where nothing is known.

        All interactive requests go before a bulk one.
        """
        return self._work.wait_behind(ahead + (len(self._interactive.queue) if level is self._bulk else 0))

    def _level(self, request: Request) -> Level[Any, Request]:
        return self._bulk if request.priority is self._bulk.priority else self._interactive
