"""What a stream of calls sees of the door that it came through."""

from __future__ import annotations

from typing import Protocol


class Door(Protocol):
    """How a stream's messages come in and go out."""

    cancels_reads: bool
    """Whether a read has to be cancelled when the stream is over; else it ends by itself."""

    async def read(self) -> bytes | None:
        """The next ``CallChunk``; None: the caller has half-closed.

        Raises:
            GoneError: the caller has left.
            ShoalError: what came is no message, or too large.
        """
        ...

    async def write(self, message: bytes) -> None:
        """Sends a ``CallResultChunk``; returns when the next one may be sent. Raises GoneError."""
        ...


class GoneError(Exception):
    """The caller has left: there is nobody to answer."""
