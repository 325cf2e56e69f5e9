"""The metrics of one model's result cache."""

from __future__ import annotations

import weakref
from typing import Protocol

from shoal.observe import metrics


class Holder(Protocol):
    """A result cache."""

    held_bytes: int


class ResultCacheMeter:
    """A model's, with their labels bound once."""

    def __init__(self, model: str) -> None:
        self._bytes = metrics.WORKER_RESULT_CACHE_BYTES.labels(model)
        self._hits, self._misses = (metrics.WORKER_RESULT_CACHE_LOOKUPS.labels(model, each) for each in ("hit", "miss"))
        self._evicted, self._expired = (
            metrics.WORKER_RESULT_CACHE_EVICTIONS.labels(model, each) for each in ("room", "expired")
        )

    def show(self, cache: Holder) -> None:
        """Tells how much ``cache`` holds, for as long as anybody uses it."""
        known = weakref.ref(cache)

        def held() -> int:
            alive = known()
            return 0 if alive is None else alive.held_bytes

        self._bytes.set_function(held)

    def hit(self) -> None:
        """An answer was there."""
        self._hits.inc()

    def missed(self) -> None:
        """None was."""
        self._misses.inc()

    def evicted(self) -> None:
        """An answer made room for another."""
        self._evicted.inc()

    def expired(self) -> None:
        """The time of an answer was over, and it is gone."""
        self._expired.inc()
