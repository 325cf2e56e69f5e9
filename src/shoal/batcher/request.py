"""A request inside the batcher: what the policy sees, and what its caller waits on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shoal.batcher.queue import Entry

if TYPE_CHECKING:
    import asyncio


@dataclass(eq=False, slots=True, kw_only=True)
class Request(Entry):
    """One unary call. Its message is opaque."""

    message: bytes = field(repr=False)
    answer: asyncio.Future[bytes]
    """The response message, or the error that the caller gets."""
    traceparent: str = ""
