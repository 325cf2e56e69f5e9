"""Counts what comes of a model's requests."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from shoal.errors import DeadlineExceeded, Overloaded
from shoal.simulate.latencies import Latencies
from shoal.simulate.scenario import ModelOutcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.errors import ShoalError
    from shoal.simulate.events import Events
    from shoal.simulate.replica import Batch, Request


class Tally:
    """Of one model."""

    def __init__(self, events: Events, since: float, until: float, back: float) -> None:
        """Nothing yet.

        Args:
            events: The time.
            since: Requests that were sent before don't count.
            until: When arrivals end.
            back: Seconds from the queue to the client.
        """
        self._events, self._since, self._until, self._back = events, since, until, back
        self._latencies = Latencies()
        self._offered: Counter[str] = Counter()
        self._answered: Counter[str] = Counter()
        self._refused = self._late = self._failed = 0
        self._batches = self._executed = self._through = 0

    def offered(self, request: Request) -> None:
        """It is sent."""
        if request.sent >= self._since:
            self._offered[request.owner] += 1

    def answered(self, batch: Batch, requests: Sequence[Request]) -> None:
        """Those of the batch that still waited have their answers."""
        at = self._events.time + self._back
        if self._since <= batch.ended <= self._until and batch.size:
            self._batches += 1
            self._executed += batch.size
        if self._since <= at <= self._until:
            self._through += len(requests)
        counted = [request for request in requests if request.sent >= self._since]
        self._latencies.extend([at - request.sent for request in counted])
        self._answered.update([request.owner for request in counted])

    def refused(self, request: Request, error: ShoalError) -> None:
        """It has an error."""
        if request.sent < self._since:
            return
        if isinstance(error, DeadlineExceeded):
            self._late += 1
        elif isinstance(error, Overloaded):
            self._refused += 1
        else:
            self._failed += 1

    def outcome(self) -> ModelOutcome:
        """What came of it."""
        return ModelOutcome(
            offered=self._offered.total(),
            answered=self._answered.total(),
            refused=self._refused,
            late=self._late,
            failed=self._failed,
            throughput=self._through / (self._until - self._since),
            mean_batch_size=self._executed / self._batches if self._batches else 0.0,
            latencies=self._latencies.in_order(),
            owners={owner: (count, self._answered[owner]) for owner, count in self._offered.items()},
        )
