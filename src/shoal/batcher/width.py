"""How many streams a queue keeps open: as many as it had use for lately, and as many more."""

from __future__ import annotations

SPARE_STREAMS = 2
"""Kept open however little there is to do, so that a request finds a permit."""
MAX_STREAMS = 1024
"""Streams of one queue, at most, however large the pool."""


class Width:
    """Grows at once, and shrinks after a whole period in which less was enough; ``turn`` ends a period: no clock here.

    Twice of what was in use at once: the other half waits for slots that become free, or for the next rush, which
    finds twice as many at each step.
    """

    def __init__(self) -> None:
        self._peak = self._last_peak = 0

    @property
    def target(self) -> int:
        """Streams to keep."""
        return min(MAX_STREAMS, 2 * max(self._peak, self._last_peak) + SPARE_STREAMS)

    def busy(self, count: int) -> None:
        """So many carry a batch now."""
        self._peak = max(self._peak, count)

    def turn(self, count: int) -> None:
        """A period is over, and ``count`` carry a batch."""
        self._last_peak, self._peak = self._peak, count
