"""How many uploads a key may ask for: its calls a second bound them too, one by one. No I/O and no clock."""

from __future__ import annotations

import math

from shoal.errors import Overloaded
from shoal.service.identity import rate_limit

AHEAD = 64
"""What a client that keeps a few in stock may ask for at once, however low its rate: Shoal's own client does."""


class UploadLimits:
    """A bucket of tokens a key. A call may overdraw it, within ``AHEAD``, and the next waits until that is paid."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key_id: str, rate: float, count: int, now: float) -> None:
        """Counts the uploads that a key asks for.

        Args:
            key_id: Whose they are.
            rate: The key's calls a second; 0: no limit.
            count: How many.
            now: Seconds, from any origin.

        Raises:
            Overloaded: it asks for too many at once, or has to wait.
        """
        if not rate:
            return
        most = max(1, math.ceil(rate))
        if count > max(AHEAD, most):
            raise Overloaded(f"this caller's rate allows {max(AHEAD, most)} uploads a call, and {count} are asked for")
        tokens, since = self._buckets.get(key_id, (float(most), now))
        tokens = min(most, tokens + (now - since) * rate)
        if tokens < 1:
            text = f"{rate_limit(key_id)} is reached, to which each upload counts; try again later"
            raise Overloaded(text, (1 - tokens) / rate)
        self._buckets[key_id] = tokens - count, now
