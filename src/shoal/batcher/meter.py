"""The metrics of a batcher's queues.

A model has series of its own from its first permit on. Until a worker has vouched for it, its name is only what a
caller said, and what becomes of its requests is counted under ``STRANGER``.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Protocol, get_args

from shoal.batcher.batch_stream import StreamState
from shoal.batcher.closing import CloseReason
from shoal.errors import Code
from shoal.observe import metrics
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from shoal.batcher.request import Request

STRANGER = "-"
"""In the place of a model's name; no model has it."""


class Queue(Protocol):
    """What is counted when somebody asks; from any thread."""

    @property
    def queued(self) -> int:
        """Requests that wait for a permit."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests at a worker."""
        ...

    def streams(self, state: StreamState) -> int:
        """Streams in this state."""
        ...


class _Level:
    """The metrics of one model and priority, with their labels bound once."""

    def __init__(self, model: str, priority: Priority) -> None:
        self._latency = metrics.BATCHER_LATENCY.labels(model, priority)
        self._queue = metrics.BATCHER_QUEUE.labels(model, priority)
        self._codes = {code: metrics.BATCHER_REQUESTS.labels(model, code.name, priority) for code in Code}

    def ended(self, requests: Sequence[Request]) -> None:
        """These requests have ended."""
        for code, count in Counter([request.code for request in requests]).items():
            self._codes[code].inc(count)
        self._latency.observe_all([request.ended - request.arrived for request in requests if request.code is Code.OK])

    def sent(self, now: float, requests: Sequence[Request]) -> None:
        """These are on their way to a worker."""
        self._queue.observe_all([now - request.arrived for request in requests])


class QueueMeter:
    """The metrics of one model."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._levels = {Priority.INTERACTIVE: _Level(model, Priority.INTERACTIVE)}
        self._size = metrics.BATCHER_BATCH_SIZE.labels(model)
        self._request_bytes = metrics.BATCHER_REQUEST_BYTES.labels(model)
        self.answer_bytes = metrics.BATCHER_ANSWER_BYTES.labels(model).inc
        self.resent = metrics.BATCHER_RESENT.labels(model).inc
        self.given_up = metrics.BATCHER_GIVEN_UP.labels(model).inc
        self._reasons = {r: metrics.BATCHER_CLOSED.labels(model, r) for r in get_args(CloseReason)}

    def ended(self, requests: Sequence[Request]) -> None:
        """These requests have ended."""
        for level, some in self._by_level(requests):
            level.ended(some)

    def sent(self, now: float, requests: Sequence[Request]) -> None:
        """These are on their way to a worker."""
        for level, some in self._by_level(requests):
            level.sent(now, some)
        self._request_bytes.inc(sum([len(request.message) for request in requests]))

    def closed(self, size: int, reason: str) -> None:
        """A batch is complete."""
        self._size.observe(size)
        self._reasons[reason].inc()

    def _by_level(self, requests: Sequence[Request]) -> Iterator[tuple[_Level, Sequence[Request]]]:
        bulk = [request for request in requests if request.priority is Priority.BULK]
        if not bulk:
            yield self._levels[Priority.INTERACTIVE], requests
            return
        if Priority.BULK not in self._levels:
            self._levels[Priority.BULK] = _Level(self._model, Priority.BULK)
        yield self._levels[Priority.BULK], bulk
        if urgent := [request for request in requests if request.priority is not Priority.BULK]:
            yield self._levels[Priority.INTERACTIVE], urgent


class Meters:
    """Those of one batcher. Gauges show the sum over a model's queues, of which there is one a method."""

    def __init__(self) -> None:
        self._meters: dict[str, QueueMeter] = {}
        self._queues: dict[str, tuple[Queue, ...]] = {}

    def of(self, model: str, queue: Queue) -> QueueMeter:
        """The meter of a model that a worker serves; from now on ``queue`` counts."""
        self._queues[model] = (*self._queues.get(model, ()), queue)
        if model not in self._meters:
            self._meters[model] = QueueMeter(model)
            self._show(model)
        return self._meters[model]

    def remove(self, model: str, queue: Queue) -> None:
        """The queue is over, if it counted at all."""
        if model in self._queues:
            self._queues[model] = tuple(other for other in self._queues[model] if other is not queue)

    def _show(self, model: str) -> None:
        def total(count: Callable[[Queue], int]) -> int:
            return sum(count(queue) for queue in self._queues[model])

        metrics.BATCHER_DEPTH.labels(model).set_function(partial(total, lambda queue: queue.queued))
        metrics.BATCHER_IN_FLIGHT.labels(model).set_function(partial(total, lambda queue: queue.in_flight))
        for state in get_args(StreamState):
            count = partial(_streams, state)
            metrics.BATCHER_STREAMS.labels(model, state).set_function(partial(total, count))


def _streams(state: StreamState, queue: Queue) -> int:
    return queue.streams(state)


def count_strangers(requests: Iterable[Request]) -> None:
    """These have ended before any worker served their model."""
    for request in requests:
        metrics.BATCHER_REQUESTS.labels(STRANGER, request.code.name, request.priority).inc()
