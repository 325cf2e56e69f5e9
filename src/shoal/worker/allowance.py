"""How many uploads a key may ask for: its calls a second bound them too, one by one. No I/O and no clock."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from shoal.errors import Overloaded

if TYPE_CHECKING:
    from shoal.keys import Key

AHEAD = 64
"""What a client that keeps a few in stock may ask for at once, however low its rate: Shoal's own client does."""


class Allowances:
    """A bucket of tokens a key. A call may overdraw it, within ``AHEAD``, and the next waits until that is paid."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key: Key, count: int, now: float) -> None:
        """Counts ``count`` uploads of ``key`` at ``now`` (seconds, from any origin).

        Raises:
            Overloaded: it asks for too many at once, or has to wait.
        """
        rate = key.requests_per_second
        if not rate:
            return
        most = max(1, math.ceil(rate))
        if count > max(AHEAD, most):
            raise Overloaded(f"this key's rate allows {max(AHEAD, most)} uploads a call, and {count} are asked for")
        tokens, since = self._buckets.get(key.id, (float(most), now))
        tokens = min(most, tokens + (now - since) * rate)
        if tokens < min(count, 1):
            wait = (1 - tokens) / rate
            raise Overloaded("this API key's rate limit is reached, uploads among it; try again later", wait)
        self._buckets[key.id] = tokens - count, now
