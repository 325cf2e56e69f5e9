"""The streams of one queue and priority: how many are open, when more are opened, and which are closed."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from shoal.batcher.batch_stream import BatchStream
from shoal.batcher.width import Width
from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from shoal.batcher.batch_stream import Call, StreamListener, StreamState

NO_WORKER_SECONDS = 5.0
"""After this long without any worker, waiting requests are answered UNAVAILABLE; the client may try again."""
_BACKOFF_SECONDS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0)
"""Before streams are opened, by how many have failed in a row."""


class QueueStreams:
    """All that aren't over yet. Opens none before ``maintain``."""

    def __init__(
        self,
        start: Callable[[], Call],
        listener: StreamListener,
        loop: asyncio.AbstractEventLoop,
        priority: Priority = Priority.INTERACTIVE,
    ) -> None:
        """Prepares.

        Args:
            start: Opens one.
            listener: Is told of each one's life; it calls ``remove`` when one has ended.
            loop: On which they live.
            priority: What their batches hold is no more urgent.
        """
        self._priority = priority
        self._start = start
        self._listener = listener
        self._loop = loop
        self._streams: set[BatchStream] = set()
        self._width = Width()
        self._failures = 0
        self._failure_text = ""
        self._down_since: float | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._stopping = False

    def __iter__(self) -> Iterator[BatchStream]:
        return iter(self._streams)

    def __len__(self) -> int:
        return len(self._streams)

    @property
    def in_flight(self) -> int:
        """Requests that were sent on them and have no answer; from any thread."""
        return sum(stream.in_flight for stream in tuple(self._streams))

    def count(self, state: StreamState) -> int:
        """Streams in this state; from any thread."""
        return sum(stream.state == state for stream in tuple(self._streams))

    @property
    def served(self) -> bool:
        """Whether a worker is at the other end of any."""
        return any(stream.served for stream in self._streams)

    @property
    def why_down(self) -> str | None:
        """How the last stream failed, where no worker serves the queue now; else None."""
        return None if self._down_since is None or self.served else self._failure_text

    def remove(self, stream: BatchStream) -> None:
        """It has ended."""
        self._streams.discard(stream)

    def stop(self) -> None:
        """Ends all, and opens no others."""
        self._stopping = True
        if self._retry is not None:
            self._retry.cancel()
        for stream in list(self._streams):
            stream.abandon()

    def maintain(self) -> None:
        """Opens streams up to the target, later if the last ones failed."""
        if self._stopping or self._retry is not None:
            return
        delay = _BACKOFF_SECONDS[min(self._failures, len(_BACKOFF_SECONDS) - 1)]
        if delay:
            self._retry = self._loop.call_later(delay, self._reopen)
        else:
            self._fill(self._width.target)

    def succeeded(self) -> None:
        """A worker has granted a permit."""
        self._failures = 0
        self._down_since = None
        self.maintain()

    def failed(self, message: str) -> bool:
        """A stream was of no use; whether there has been no worker for ``NO_WORKER_SECONDS``."""
        now = monotonic()
        self._failures += 1
        self._failure_text = message
        if self.served:
            return False
        self._down_since = self._down_since or now
        return now - self._down_since >= NO_WORKER_SECONDS

    def batch_closed(self) -> None:
        """A batch is complete: of so many at once there is use."""
        self._width.busy(self._busy)

    def turn(self) -> list[BatchStream]:
        """A period is over: closes streams that carry nothing, down to the target, those without a permit first.

        Returns:
            Those whose permit isn't used any more.
        """
        self._width.turn(self._busy)
        surplus = max(0, self._staying - self._width.target)
        unused = [stream for stream in self._streams if stream.state != "in use" and not stream.in_flight]
        chosen = sorted(unused, key=lambda stream: stream.state == "permitted")[:surplus]
        permitted = [stream for stream in chosen if stream.state == "permitted"]
        for stream in chosen:
            if stream.state == "parked":
                stream.abandon()
            elif stream.state == "permitted":
                stream.retire()
        return permitted

    def leave(self, worker: str) -> list[BatchStream]:
        """A stream broke there: the worker may be dead, and its other permits worth nothing.

        Streams that hold one are opened anew, so that no suspect, which has one more try, goes there. Those with
        stragglers wait for them first: these may be at a worker that is well, above all where none says its name.

        Returns:
            Those whose permit isn't used any more.
        """
        permitted = [each for each in self._streams if each.state == "permitted" and each.worker == worker]
        for stream in permitted:
            if stream.in_flight:
                stream.retire()
            else:
                stream.abandon()
        return permitted

    def _reopen(self) -> None:
        self._retry = None
        self._fill(self._staying + 1)  # one probe, until a worker answers again

    def _fill(self, count: int) -> None:
        for _ in range(min(count, self._width.target) - self._staying):
            self._streams.add(BatchStream(self._start, self._listener, self._loop, self._priority))

    @property
    def _staying(self) -> int:
        """Streams that carry batches or wait for their turn. A retiring one may wait long for its stragglers."""
        return sum(stream.state != "retiring" for stream in self._streams)

    @property
    def _busy(self) -> int:
        return sum(stream.state == "in use" for stream in self._streams)
