"""What holds for each call, alone or of a stream: its size and its time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from shoal.batcher.callers import traceparent_of
from shoal.batching import wire
from shoal.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_TIMEOUT_SECONDS: Final = 30.0
"""For a call without a deadline; the router sets one on every call."""
MOST_SECONDS: Final = 1e9
"""More is as good as no deadline, and its microseconds may not fit into a message to a worker."""
_TIMEOUTS: Final = re.compile(r"([0-9]{1,15}),([0-9]{1,15})")


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for each call of a stream."""

    message_bytes: int
    default_seconds: float = DEFAULT_TIMEOUT_SECONDS
    most_seconds: float = MOST_SECONDS
    traceparent: str = ""
    """Of calls that bring none of their own."""

    @classmethod
    def of(cls, headers: Mapping[str, str], message_bytes: int) -> Self:
        """With the router's times, where they came."""
        traceparent = traceparent_of(headers.get("traceparent", ""))
        if found := _TIMEOUTS.fullmatch(headers.get(wire.TIMEOUTS, "")):
            return cls(message_bytes, int(found[1]) / 1e6, int(found[2]) / 1e6, traceparent)
        return cls(message_bytes, traceparent=traceparent)

    def seconds(self, timeout_us: int) -> float:
        """A call's time."""
        return min(timeout_us / 1e6 if timeout_us else self.default_seconds, self.most_seconds)


def too_large(limit: int) -> InvalidRequest:
    """The error of a message of more than ``limit`` bytes."""
    return InvalidRequest(f"the message is larger than {limit} bytes")
