"""Counts what comes of a model's requests."""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING

from shoal.errors import DeadlineExceeded, Overloaded
from shoal.simulate.latencies import Latencies
from shoal.simulate.scenario import ModelOutcome, Moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.errors import ShoalError
    from shoal.simulate.events import Events
    from shoal.simulate.replica import Batch, Request


class Tally:
    """Of one model."""

    def __init__(self, events: Events, since: float, until: float, back: float, moment: float = 0.0) -> None:
        """Nothing yet.

        Args:
            events: The time.
            since: Requests that were sent before don't count.
            until: When arrivals end.
            back: Seconds from the queue to the client.
            moment: See ``Scenario``.
        """
        self._events, self._since, self._until, self._back = events, since, until, back
        self._moments = Moments(moment) if moment else None
        self._latencies = Latencies()
        self._offered: Counter[str] = Counter()
        self._answered: Counter[str] = Counter()
        self._refused = self._late = self._failed = 0
        self._batches = self._executed = self._through = 0

    def offered(self, request: Request) -> None:
        """It is sent."""
        if self._moments is not None:
            self._moments.offered(request)
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
        if self._moments is not None:
            self._moments.answered(at, requests)
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
            moments=self._moments.outcome() if self._moments is not None else (),
        )


class Moments:
    """Counts by the moment in which a request was sent."""

    def __init__(self, seconds: float) -> None:
        """Nothing yet; each lasts so long."""
        self._seconds = seconds
        self._offered: list[int] = []
        self._latencies: list[array[float]] = []

    def offered(self, request: Request) -> None:
        """It is sent."""
        number = int(request.sent / self._seconds)
        while len(self._offered) <= number:
            self._offered.append(0)
            self._latencies.append(array("d"))
        self._offered[number] += 1

    def answered(self, at: float, requests: Sequence[Request]) -> None:
        """They have their answers then."""
        for request in requests:
            self._latencies[int(request.sent / self._seconds)].append(at - request.sent)

    def outcome(self) -> list[Moment]:
        """Of each."""
        return [
            Moment(offered, sorted(latencies))
            for offered, latencies in zip(self._offered, self._latencies, strict=True)
        ]
