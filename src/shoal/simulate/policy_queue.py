"""A batcher's queue of one model under virtual time: carries out what the real policy decides."""

from __future__ import annotations

import math
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

from shoal.batcher.policy import BatchingPolicy, Close, Reject, Send
from shoal.batcher.queue_streams import NO_WORKER_SECONDS
from shoal.errors import DeadlineExceeded, Unavailable
from shoal.runtime.deadlines import Deadlines
from shoal.runtime.priority import Priority
from shoal.simulate.replica import Batch, Request, Stream

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from shoal.batcher.policy import Decision
    from shoal.batcher.quarantine import Quarantine
    from shoal.errors import ShoalError
    from shoal.simulate.events import Events
    from shoal.simulate.replica import ServedModel
    from shoal.simulate.scenario import SimulatedModel

_ATTEMPTS = attrgetter("attempts")
_PROBE_SECONDS = 1.0
"""Between two tries to reach a worker, where there is none: the longest that a batcher waits."""


class Listener(Protocol):
    """Is told what becomes of requests."""

    def answered(self, batch: Batch, requests: Sequence[Request]) -> None:
        """These of a batch have their answers; the others had left."""
        ...

    def refused(self, request: Request, error: ShoalError) -> None:
        """It has an error."""
        ...


class Ways(Protocol):
    """What a queue's surroundings are like."""

    path: float
    """Seconds from batcher to worker, and as long again back."""
    slower_store: float
    """By how many times pictures take longer to prepare."""
    tells: bool
    """Whether workers tell how long batches were at the engine and how large, which older ones don't."""
    named: bool
    """Whether workers tell their names."""

    def late(self) -> float:
        """Seconds by which the next timer is late."""
        ...


class PolicyQueue:
    """One policy and the streams that serve it."""

    def __init__(
        self,
        model: SimulatedModel,
        events: Events,
        ways: Ways,
        listener: Listener,
        source: random.Random,
        quarantine: Quarantine | None = None,
    ) -> None:
        """Without any worker.

        Args:
            model: Whose.
            events: The time.
            ways: What is around it.
            listener: Is told what becomes of requests.
            source: Of chance.
            quarantine: Shared by queues of the same workers.
        """
        self.policy: BatchingPolicy[Stream, Request] = BatchingPolicy(model.settings, quarantine)
        self.reasons: list[str] | None = None
        """Why batches closed, where somebody wants to know."""
        self.in_flight = 0
        """Requests that have no answer yet."""
        self._draw = model.prepare.draw
        self._events, self._ways, self._listener, self._source = events, ways, listener, source
        self._deadlines: Deadlines[Request] = Deadlines(events, self._expire)
        self._streams: dict[str, list[Stream]] = {}
        """Of each worker."""
        self._wake_at = math.inf
        self._probing = False
        self._down_since: float | None = None

    def enter(self, requests: Sequence[Request]) -> None:
        """They come now, together."""
        self.in_flight += len(requests)
        if requests[0].deadline != math.inf:
            self._deadlines.add(requests)
        self._do(self.policy.arrived(self._events.time, requests))
        if not self._streams:
            self._look_for_workers()

    def enter_one(self, request: Request) -> None:
        """It comes now, alone."""
        self.enter((request,))

    # Workers.

    def join(self, served: ServedModel, priorities: Sequence[Priority] = tuple(Priority)) -> None:
        """A process of a worker serves it from now on."""
        streams = [Stream(served, priority, self._granted) for _ in range(served.permits) for priority in priorities]
        self._streams.setdefault(served.replica.name, []).extend(streams)
        self._down_since = None
        self.policy.configure(served.settings)
        for stream in streams:
            served.ask(stream)

    def drain(self, worker: str) -> None:
        """It takes no more batches; those that it has are answered."""
        for stream in self._streams.get(worker, ()):
            if stream.batch is None:
                self._lost(stream)
            else:
                stream.permit = None
        self._forget(worker)

    def lost(self, worker: str) -> None:
        """All of its streams break, as when a worker dies."""
        streams = self._streams.pop(worker, [])
        if any(stream.batch is not None and not stream.over for stream in streams):
            for stream in streams:  # no suspect, which has one more try, goes there
                if stream.batch is None:
                    self.policy.revoked(stream)
        for stream in streams:
            self._lost(stream)
        self._look_for_workers()

    def fail(self, worker: str, error: ShoalError) -> None:
        """It has ended, and its queue with it: all that is there has the error."""
        for stream in self._streams.pop(worker, []):
            stream.over = True
            for request in stream.batch.requests if stream.batch else ():
                if not request.ended:
                    self._end(request, error)
        self._refuse(self.policy.fail(error))

    def wake(self) -> None:
        """A worker is free for a suspect."""
        self._do(self.policy.tick(self._events.time))

    def _lost(self, stream: Stream) -> None:
        if stream.over:
            return
        stream.over = True
        batch, stream.batch = stream.batch, None
        broken = [] if batch is None else [request for request in batch.requests if not request.ended]
        self._do(self.policy.lost(self._events.time, stream, broken))

    def _forget(self, worker: str) -> None:
        """Once nothing is in flight there."""
        if all(stream.over for stream in self._streams.get(worker, ())):
            self._streams.pop(worker, None)
            self._look_for_workers()

    def _look_for_workers(self) -> None:
        """Where there is none, what waits is told so, after a while."""
        if self._streams or self._probing or not self.policy.queued:
            return
        now = self._events.time
        if self._down_since is None:
            self._down_since = now
        self._probing = True
        self._events.at(max(self._down_since + NO_WORKER_SECONDS, now + _PROBE_SECONDS), self._give_up)

    def _give_up(self) -> None:
        self._probing = False
        if not self._streams:
            self._refuse(self.policy.fail(Unavailable("no worker serves the model now")))

    # From decisions to events.

    def _do(self, decisions: Sequence[Decision[Stream, Request]]) -> None:
        for decision in decisions:
            if isinstance(decision, Send):
                self._send(decision.stream, decision.requests)
            elif isinstance(decision, Close):
                self._close(decision.stream, decision.reason)
            else:
                self._refuse([decision])
        wake_at = self.policy.wake_at
        if wake_at < self._wake_at:
            self._wake_at = wake_at
            self._events.at(wake_at + self._ways.late(), self._wake, wake_at)

    def _send(self, stream: Stream, requests: Sequence[Request]) -> None:
        come = self._events.time + self._ways.path
        batch = stream.batch
        if batch is None:
            batch = stream.batch = Batch(stream.priority)
            self._events.at(come, stream.served.use, stream)
        batch.requests += requests
        draw, source, factor = self._draw, self._source, self._ways.slower_store
        seconds = [draw(source) * factor for _ in requests]
        batch.ready = max(batch.ready, stream.served.replica.prepared(come, seconds))

    def _close(self, stream: Stream, reason: str) -> None:
        if self.reasons is not None:
            self.reasons.append(reason)
        batch = stream.batch
        assert batch is not None
        batch.ready = max(batch.ready, self._events.time + self._ways.path)
        self._events.at(batch.ready, stream.served.ready, batch, partial(self._executed, stream, batch))

    def _wake(self, at: float) -> None:
        if at == self._wake_at:
            self._wake_at = math.inf
            self._do(self.policy.tick(self._events.time))

    def _executed(self, stream: Stream, batch: Batch) -> None:
        """At the worker."""
        renewed = stream.served.renew(stream)
        self._events.at(self._events.time + self._ways.path, self._answer, stream, batch, renewed)
        if not renewed and stream.permit is not None:
            stream.served.ask(stream)

    def _answer(self, stream: Stream, batch: Batch, renewed: bool) -> None:
        if stream.over:
            return
        now, stream.batch = self._events.time, None
        told = (batch.ended - batch.ready, batch.size) if self._ways.tells else ()
        self.policy.executed(now, stream, *told)
        waited = [request for request in batch.requests if not request.ended]
        for request in waited:
            request.ended = True
            self._deadlines.remove(request) if request.deadline != math.inf else None
        self.in_flight -= len(waited)
        self._listener.answered(batch, waited)
        if any(map(_ATTEMPTS, batch.requests)):
            self._do(self.policy.settled(now, stream))
        if renewed:
            self._permitted(stream)
        elif stream.permit is None:  # its worker drains
            self._lost(stream)
            self._forget(stream.served.replica.name)

    def _granted(self, stream: Stream) -> None:
        """At the worker."""
        self._events.at(self._events.time + self._ways.path, self._permitted, stream)

    def _permitted(self, stream: Stream) -> None:
        if not stream.over:
            worker = stream.worker if self._ways.named else ""
            self._do(self.policy.permitted(self._events.time, stream, worker, stream.priority))

    # Those without an answer.

    def _refuse(self, rejections: Sequence[Reject[Request]]) -> None:
        for rejection in rejections:
            if not rejection.request.ended:
                self._end(rejection.request, rejection.error)

    def _expire(self, requests: Sequence[Request]) -> None:
        error = DeadlineExceeded("the deadline passed before an answer came")
        for request in requests:
            if not request.ended:
                self._end(request, error)
        self._do(self.policy.withdrawn(self._events.time, requests))

    def _end(self, request: Request, error: ShoalError) -> None:
        request.ended = True
        self.in_flight -= 1
        self._deadlines.remove(request) if request.deadline != math.inf else None
        self._listener.refused(request, error)
