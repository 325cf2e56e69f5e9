"""A request inside the batcher: what the policy sees, what its caller waits on, and what is told of it later."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import TYPE_CHECKING, Protocol

from shoal.batching.fair_queue import Queued
from shoal.errors import Code
from shoal.explain.recent import MAX_TEXT
from shoal.runtime.logs import Seldom
from shoal.service.identity import NOBODY, CallerId

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.errors import ShoalError
    from shoal.explain.recent import Recent
    from shoal.explain.views import Answer, BatcherVisit, BatchView
    from shoal.modelconfig.batching import BatchingSettings
    from shoal.observe.tracing import Span

log = Seldom(logging.getLogger(__name__))


@dataclass(eq=False, slots=True)
class SentBatch:
    """What the requests of one batch have in common."""

    opened: float
    size: int = 0
    closed: float = 0.0
    """0: it is open."""
    reason: str = ""
    settings: BatchingSettings | None = None
    """Those that held when it closed."""

    def close(self, reason: str, settings: BatchingSettings) -> None:
        """The batch is complete."""
        self.closed, self.reason, self.settings = monotonic(), reason, settings

    def view(self, now: float) -> BatchView:
        """What is told of it."""
        from shoal.explain.views import BatchView  # only who is asked pays for pydantic

        seconds = (self.closed or now) - self.opened
        told = BatchView(size=self.size, open_seconds=seconds, closed_because=self.reason)
        return told.model_copy(update=_limits(self.settings)) if self.settings else told


class Carrier(Protocol):
    """The stream that a request was sent on."""

    def withdraw(self, index: int) -> None:
        """The caller of the item ``index`` has left: the worker is told."""


@dataclass(eq=False, slots=True, kw_only=True)
class Request(Queued):
    """One unary call, alone or of a stream. Its message is opaque. Times are 0 until they come."""

    message: bytes = field(repr=False)
    caller: CallerId = NOBODY
    reply: Callable[[Request, bytes, ShoalError | None], None] | None
    """Told once of the response message, or of the error that the caller gets. None: it was, or the caller has left."""
    place: int = 0
    """The call's index in its caller's stream."""
    traceparent: str = ""
    span: Span | None = field(default=None, repr=False)
    """If it is traced."""
    called: tuple[str, str] = ("", "")
    """The method and the model."""
    ahead: int = 0
    """Requests that were queued when it came."""
    lost: float = 0.0
    """When a stream last broke under it."""
    sent: float = 0.0
    carrier: Carrier | None = None
    """While it is at a worker."""
    index: int = 0
    """Within its carrier's items."""
    batch: SentBatch | None = None
    ended: float = 0.0
    code: Code = Code.OK
    text: str = ""

    @property
    def key_id(self) -> str:
        """What it is known by outside the queue."""
        return self.caller.key_id or self.owner

    def answer(self, now: float, response: bytes) -> None:
        """Its caller gets ``response``, which isn't remembered."""
        self.ended = now
        self._reply(response, None)

    def fail(self, now: float, error: ShoalError, code: Code | None = None) -> None:
        """Its caller gets ``error``; ``code``, where it isn't the error's own, is what is remembered."""
        self.code, self.text, self.ended = error.code if code is None else code, str(error)[:MAX_TEXT], now
        self._reply(b"", error)

    def _reply(self, response: bytes, error: ShoalError | None) -> None:
        """Whoever fails at being told, fails alone: others are told in the same turn."""
        reply, self.reply = self.reply, None
        try:
            if reply is not None:
                reply(self, response, error)
        except Exception as fault:
            log.say(type(fault).__name__, "a caller couldn't be told by a fault of the batcher's", error=fault)

    def abandon(self, now: float) -> None:
        """Its caller has left."""
        self.code, self.text, self.ended, self.reply = Code.CANCELLED, "the caller went away", now, None

    def withdraw(self) -> None:
        """Its caller has left: a worker that has it needn't go on."""
        if self.carrier is not None:
            self.carrier.withdraw(self.index)

    def withdraw_from(self, now: float) -> None:
        """The stream that it was sent on broke."""
        self.lost, self.sent, self.batch, self.carrier = now, 0.0, None, None

    @property
    def kept_bytes(self) -> int:
        """Bytes that it takes in memory after its answer, as far as callers choose their length."""
        texts = (self.owner, *self.caller, self.traceparent, self.affinity, *self.called)
        return len(self.message) + sum(map(len, texts))

    @property
    def sent_as(self) -> tuple[int, int]:
        """What its worker is told: microseconds that it waited, and those that are left of its deadline, at least 1."""
        return int((self.sent - self.arrived) * 1e6), max(1, int((self.deadline - self.sent) * 1e6))

    def view(self, now: float) -> BatcherVisit:
        """What is told of it; not its message, which holds a key."""
        from shoal.explain.views import BatcherVisit, stages

        end, batch, sent = self.ended or now, self.batch, self.sent
        marks = [("broken", self.lost)] if self.lost else []
        marks += [("permit", sent), ("open", max(batch.closed, sent) if batch and batch.closed else 0.0)]
        method, model = self.called
        return BatcherVisit(
            method=method,
            model=model,
            key_id=self.key_id,
            seconds_ago=now - self.arrived,
            stage_seconds=stages(self.arrived, [*marks, ("closed", self.ended)], end),
            total_seconds=end - self.arrived,
            code=self.code.name if self.ended else "",
            message=self.text,
            sent_as=self.sent_as if sent else None,
            timeout_seconds=self.deadline - self.arrived,
            queued_ahead=self.ahead,
            broken_streams=self.attempts,
            priority=self.priority.value,
            batch=batch.view(end) if batch else None,
        )


SLICE_BYTES = 65_536
"""Looked through in one go, some 0.1 ms; between two of them the batcher, in the same interpreter, has its turn."""
PAUSE_SECONDS = 0.0005
_LOOK_BYTES = 256
"""A message costs as much as so many more bytes."""


def explain(recent: Recent[Request], image_uuid: str, sleep: Callable[[float], object] = sleep) -> Answer:
    """What is remembered of a uuid, in lower case: messages are opaque, so it is looked for anywhere in them."""
    from shoal.explain.views import Answer

    now, wanted = monotonic(), image_uuid.encode()
    found: list[Request] = []
    looked = 0
    for request in recent.newest_first():
        looked += len(request.message) + _LOOK_BYTES
        if looked > SLICE_BYTES:
            looked = 0
            sleep(PAUSE_SECONDS)
        if wanted in request.message.lower():
            found.append(request)
    return Answer(memory=recent.memory(now), batcher=tuple(request.view(now) for request in found))


def _limits(settings: BatchingSettings) -> dict[str, object]:
    return {
        "max_batch_size": settings.max_batch_size,
        "preferred_batch_size": settings.preferred_batch_size,
        "max_queue_delay_microseconds": settings.max_queue_delay_microseconds,
        "latency_objective_microseconds": settings.latency_objective_microseconds,
    }
