"""When a server begins with each of the batches that it was sent: it runs some at once, the others wait in order.

The protocol doesn't say how long a request waited at the server. But batches begin in the order in which they were
sent, as many at once as there are instances, and the next one when one ends.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from time import monotonic


@dataclass(eq=False, slots=True)
class ServerBatch:
    """One batch at the server."""

    started: float | None = None
    """When its execution began, by ``time.monotonic``; None while it waits."""


class ServerExecutions:
    """All batches of one model at its server."""

    def __init__(self, instances: int) -> None:
        self._free = instances
        self._waiting: deque[ServerBatch] = deque()

    def begin(self) -> ServerBatch:
        """A batch is sent now."""
        batch = ServerBatch()
        if self._free:
            self._free -= 1
            batch.started = monotonic()
        else:
            self._waiting.append(batch)
        return batch

    def end(self, batch: ServerBatch) -> float:
        """A batch has come back, or failed; the seconds that it took, without its wait."""
        now = monotonic()
        if batch.started is None:
            self._waiting.remove(batch)
            return 0.0
        if self._waiting:
            self._waiting.popleft().started = now
        else:
            self._free += 1
        return now - batch.started
