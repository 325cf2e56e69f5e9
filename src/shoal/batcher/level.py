"""What belongs to one priority in a queue: its requests, its permits, and its open batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Generic, TypeVar

from shoal.batching.fair_queue import FairQueue, Queued

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from shoal.runtime.priority import Priority

Stream = TypeVar("Stream", bound="Hashable")
Request = TypeVar("Request", bound=Queued)

ARRIVED = attrgetter("arrived")
DEADLINE = attrgetter("deadline")


@dataclass(slots=True)
class OpenBatch(Generic[Stream]):
    """The batch that grows."""

    stream: Stream
    worker: Hashable
    """At whose end: a name, or the stream itself where the worker tells none."""
    priority: Priority
    oldest: float = math.inf
    """When its oldest request arrived."""
    tightest: float = math.inf
    """Its earliest deadline."""
    size: int = 0
    opened: float = math.inf
    """When its first requests were sent."""

    def grow(self, requests: Sequence[Queued]) -> None:
        """Takes in requests of its own priority."""
        self.size += len(requests)
        self.oldest = min(self.oldest, *map(ARRIVED, requests))
        self.tightest = min(self.tightest, *map(DEADLINE, requests))


class Level(Generic[Stream, Request]):
    """The requests of one priority, on their way from the queue to a batch of their own."""

    def __init__(self, priority: Priority) -> None:
        """Starts empty."""
        self.priority = priority
        self.queue: FairQueue[Request] = FairQueue()
        self.suspects: FairQueue[Request] = FairQueue()
        """Requests under which a stream broke."""
        self.permits: dict[Stream, str] = {}
        """And the worker at the other end; the oldest first."""
        self.open: OpenBatch[Stream] | None = None
        self.alone_last = False
        """Whether the last batch that began was a suspect's: then it is the others' turn."""

    @property
    def waiting(self) -> int:
        """Requests that wait for a permit, suspects included."""
        return len(self.queue) + len(self.suspects)

    def home_of(self, request: Request) -> FairQueue[Request]:
        """Where the request waits, if it does."""
        return self.suspects if request.attempts else self.queue

    def forget(self, stream: Stream) -> None:
        """The stream is over."""
        self.permits.pop(stream, None)
        if self.open is not None and self.open.stream == stream:
            self.open = None
