"""A key's calls a second, for calls that the router doesn't see: those of streams."""

from __future__ import annotations

import math
from typing import Final

MAX_BUCKETS: Final = 10_000
"""Keys with a limit whose calls are counted at once."""


class TokenBucket:
    """A second's worth at once, refilled steadily, as the router's own."""

    def __init__(self, rate: float, now: float) -> None:
        """Starts full; ``rate`` in calls a second."""
        self.rate = rate
        self._most = max(1, math.ceil(rate))
        self._tokens = float(self._most)
        self._at = now

    def take(self, now: float, count: int) -> int:
        """How many of ``count`` calls may go on."""
        self._refill(now)
        allowed = min(count, max(0, int(self._tokens)))
        self._tokens -= allowed
        return allowed

    def spend(self, now: float, count: int = 1) -> None:
        """Calls that were let through elsewhere count here, too; what they owe is a second's worth at most."""
        self._refill(now)
        self._tokens = max(-float(self._most), self._tokens - count)

    def seconds_to_next(self, now: float) -> float:
        """Until another call may go on."""
        self._refill(now)
        return max(0.0, (1 - self._tokens) / self.rate)

    def is_full(self, now: float) -> bool:
        """Whether nobody used it lately."""
        self._refill(now)
        return self._tokens >= self._most

    def _refill(self, now: float) -> None:
        self._tokens = min(self._most, self._tokens + (now - self._at) * self.rate)
        self._at = now


class Rates:
    """The buckets of all keys that have a limit; one that is full again needn't be kept."""

    def __init__(self) -> None:
        self._buckets: dict[str, TokenBucket] = {}

    def of(self, key_id: str, rate: float, now: float) -> TokenBucket:
        """The bucket of a key; a new one where its rate has changed."""
        bucket = self._buckets.get(key_id)
        if bucket is None or bucket.rate != rate:
            if len(self._buckets) >= MAX_BUCKETS:
                self._buckets = {key: each for key, each in self._buckets.items() if not each.is_full(now)}
            bucket = self._buckets[key_id] = TokenBucket(rate, now)
        return bucket
