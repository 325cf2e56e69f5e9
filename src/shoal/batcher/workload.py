"""What the workers have to do: the batches that are closed and not answered, and when another one could start.

A worker executes ``instance_count`` batches at once, interactive ones first, and the others wait there. So the time
from a batch's close to its answer is a wait and a service time, which includes what fetch and decode still need. Only
the service time says anything about the next batch, and is learned.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from shoal.batcher.learning import BatchTimes, Tail
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

Stream = TypeVar("Stream", bound="Hashable")

TIMER_SECONDS = 0.001
"""Timers are late by so much, and answers take as long again to leave."""
MOSTLY = 0.99
"""So many answers, or batches, are no later than is allowed for."""


@dataclass(eq=False, slots=True)
class _Closed:
    size: int
    priority: Priority
    place: Hashable
    due: float
    """When it was to close."""
    expected_end: float
    """When its answer was expected then; infinite where no time was known."""
    started: float = math.inf


class Workload(Generic[Stream]):
    """The batches of one queue that are at workers. A worker is whatever name it goes by."""

    def __init__(self) -> None:
        """Nothing is at any worker."""
        self.times = BatchTimes()
        self.instances = 1
        """Batches that a worker executes at once."""
        self.largest = 1
        """Requests in a full batch."""
        self.preparation = Tail()
        """Seconds of interactive batches from their close to their answers, but for those at the engine or before it:
        for the way there, for fetch and decode as far as they were still to come, and for the way back. Workers of an
        older version leave it unknown."""
        self.margin = TIMER_SECONDS
        """Seconds that answers come later than expected at most, mostly."""
        self._slip = Tail()
        self._running = self._running_items = self._waiting_items = 0
        """Batches that execute, and the requests in them and in those that wait: asked for at every arrival."""
        self._closed: dict[Stream, _Closed] = {}
        self._at: dict[Hashable, list[_Closed]] = {}
        """In the order of their closing."""

    def __len__(self) -> int:
        return len(self._closed)

    def at(self, worker: Hashable) -> int:
        """Batches that it has."""
        return len(self._at.get(worker, ()))

    def add(
        self,
        now: float,
        stream: Stream,
        worker: Hashable,
        size: int,
        priority: Priority,
        due: float = math.inf,
    ) -> None:
        """A batch is closed; ``due`` is when it was to be, where that is earlier: whoever closes it woke late."""
        due = min(due, now)
        expected_end = math.inf
        if self.times.known:
            expected_end = self.free_at(due, worker, priority) + self.times.expected(size)
        batch = self._closed[stream] = _Closed(size, priority, worker, due, expected_end)
        at = self._at.setdefault(worker, [])
        at.append(batch)
        self._waiting_items += size
        if len(at) == 1 or _running(at) < self.instances:
            self._start(batch, now)

    def executed(
        self, now: float, stream: Stream, engine_seconds: float = 0.0, count: int = 0, put_off: int = 0
    ) -> None:
        """The batch on ``stream``, if any, has its first answers: see ``BatchingPolicy.executed``."""
        if batch := self._closed.get(stream):
            if math.isinf(batch.started):
                self._overtook(batch, now)
            if batch.priority is Priority.INTERACTIVE:  # others overtake a bulk batch
                if batch.expected_end < math.inf:
                    self._slip.observe(max(0.0, now - batch.expected_end))
                    self.margin = self._slip.most(MOSTLY) + TIMER_SECONDS
                if engine_seconds:
                    self.preparation.observe(max(0.0, now - batch.due - engine_seconds))
            self.times.observe(batch.size, now - batch.started, count, put_off)
            self.remove(now, stream)

    def remove(self, now: float, stream: Stream) -> None:
        """The batch on ``stream``, if any, is at its worker no more."""
        if (batch := self._closed.pop(stream, None)) is None:
            return
        if batch.started < math.inf:
            self._stop(batch)
        self._waiting_items -= batch.size
        at = self._at[batch.place]
        at.remove(batch)
        if not at:
            del self._at[batch.place]
        elif _running(at) < self.instances and (following := _next(at)):
            self._start(following, now)

    def free_at(self, now: float, worker: Hashable, priority: Priority) -> float:
        """When a batch of ``priority`` that was closed now could start."""
        ahead = self._at.get(worker, ())
        if len(ahead) < self.instances:
            return now
        expected, free, waiting = self.times.expected, [], []
        for batch in ahead:
            if batch.started < math.inf:
                free.append(max(now, batch.started + expected(batch.size)))
            elif priority is Priority.BULK or batch.priority is Priority.INTERACTIVE:
                waiting.append(batch.size)
        if waiting:
            heapq.heapify(free)
            for size in waiting:
                heapq.heapreplace(free, free[0] + expected(size))
        return min(free) if len(free) >= self.instances else now

    def wait_behind(self, requests: float) -> float:
        """Seconds until a request with so many waiting ahead of it has its answer; 0 where nothing is known.

        Those ahead go in full batches, however small those are that execute just now: while they wait, batches grow.
        It goes with the last of them. Of a batch that executes, half is left in the mean.
        """
        if not self._running:
            return 0.0
        expected, largest = self.times.expected, self.largest
        full, rest = divmod(requests, largest)
        ahead = expected(self._running_items / self._running) / 2 + full * expected(largest)
        if waiting := len(self._closed) - self._running:
            ahead += waiting * expected(self._waiting_items / waiting)
        return ahead / self._running + expected(rest + 1)

    def _start(self, batch: _Closed, started: float) -> None:
        """It waits no longer, but executes."""
        batch.started = started
        self._running += 1
        self._running_items += batch.size
        self._waiting_items -= batch.size

    def _stop(self, batch: _Closed) -> None:
        """It doesn't execute, but waits."""
        batch.started = math.inf
        self._running -= 1
        self._running_items -= batch.size
        self._waiting_items += batch.size

    def _overtook(self, batch: _Closed, now: float) -> None:
        """It executed while another one was thought to, which has yet to start."""
        running = (other for other in self._at[batch.place] if other.started < math.inf)
        if other := max(running, key=lambda each: each.started, default=None):
            self._start(batch, other.started)
            self._stop(other)
        else:
            self._start(batch, now)


def _running(batches: Sequence[_Closed]) -> int:
    return sum(batch.started < math.inf for batch in batches)


def _waiting(batches: Sequence[_Closed]) -> list[_Closed]:
    return [batch for batch in batches if math.isinf(batch.started)]


def _next(batches: Sequence[_Closed]) -> _Closed | None:
    """The one that starts now: interactive ones go first."""
    waiting = _waiting(batches)
    return min(waiting, key=lambda batch: batch.priority is Priority.BULK, default=None)
