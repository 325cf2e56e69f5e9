"""Who calls, by a call's headers: whose share it takes, how urgent it is, how often it may call."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING

from shoal.batcher.rates import Rates, TokenBucket
from shoal.batching import wire
from shoal.errors import InvalidRequest, Overloaded
from shoal.runtime.priority import Priority
from shoal.service import identity
from shoal.service.identity import NOBODY, CallerId

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_OWNER_LENGTH = 1024
"""Characters of ``x-client-id``, which the router sets: a longer one is refused."""
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""https://www.w3.org/TR/trace-context/#traceparent-header; it says to ignore what isn't valid."""
_PRIORITIES = {"": Priority.INTERACTIVE, **{each.value: each for each in Priority}}


@dataclass(frozen=True, slots=True)
class Caller:
    """One caller, as long as its call or stream lasts."""

    owner: str
    """Whose share of queues and memory it takes, in any form."""
    id: CallerId = NOBODY
    priority: Priority = Priority.INTERACTIVE
    bucket: TokenBucket | None = None
    """Its key's calls a second, where it has a limit."""
    by_pipeline: bool = False
    """A pipeline asks on its behalf, for the sake of a call that is in flight in this batcher, or in another one."""

    def allowed(self, now: float, count: int) -> int:
        """How many of ``count`` calls of a stream its key's limit lets through."""
        return count if self.bucket is None else self.bucket.take(now, count)

    def rate_limited(self, now: float) -> Overloaded:
        """What the others get."""
        wait = self.bucket.seconds_to_next(now) if self.bucket else None
        return Overloaded(f"{identity.rate_limit(self.id.key_id)} is reached; try again later", wait)


class Callers:
    """Knows them by their headers."""

    def __init__(self) -> None:
        self._rates = Rates()

    def of(self, headers: Mapping[str, str]) -> Caller:
        """Who calls.

        Keys of one owner share: where the router says the owner, that is the name. Anything else counts as it is.

        Raises:
            InvalidRequest: ``x-client-id`` is far longer than any router's, or there is no such ``x-priority``.
        """
        client, text = headers.get(identity.CLIENT_HEADER, ""), headers.get(identity.HEADER, "")
        if len(client) > MAX_OWNER_LENGTH:
            raise InvalidRequest(f"the {identity.CLIENT_HEADER} metadata is longer than {MAX_OWNER_LENGTH} characters")
        wish = headers.get(wire.PRIORITY, "")
        priority = _PRIORITIES.get(wish)
        if priority is None:
            raise InvalidRequest(f"{wire.PRIORITY} {wish[:32]!r}: expected {' or '.join(Priority)}")
        verified = _verified(text)
        if verified is None:
            return Caller(client, NOBODY, priority)
        if verified.priority is Priority.BULK:  # a call lowers what its key has, and never raises it
            priority = Priority.BULK
        rate = verified.requests_per_second
        bucket = self._rates.of(verified.key_id, rate, monotonic()) if rate else None
        return Caller(verified.owner, CallerId(verified.key_id, text), priority, bucket, bool(verified.pipeline))


def traceparent_of(text: str) -> str:
    """``text``, if it is a trace context."""
    return text if text and _TRACEPARENT.fullmatch(text) else ""


@lru_cache(maxsize=1024)
def _verified(text: str) -> identity.Identity | None:
    """Parsed once a key, and not once a call."""
    return identity.Identity.parse(text)
