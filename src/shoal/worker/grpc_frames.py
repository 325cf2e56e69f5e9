"""Messages as gRPC has them in a body: a byte that says whether one is compressed, four with its size, the message.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from shoal.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX: Final = struct.Struct(">BI")


def frame(message: bytes) -> bytes:
    """One message, not compressed."""
    return _PREFIX.pack(0, len(message)) + message


class Frames:
    """Finds messages in a body that comes in pieces."""

    def __init__(self, max_bytes: int) -> None:
        """``max_bytes``: of a message."""
        self._max_bytes = max_bytes
        self._held = bytearray()

    def add(self, piece: bytes) -> Iterator[bytes]:
        """The messages that are complete with it.

        Raises:
            InvalidRequest: one is compressed, or too large.
        """
        self._held += piece
        while len(self._held) >= _PREFIX.size:
            compressed, size = _PREFIX.unpack_from(self._held)
            if compressed or size > self._max_bytes:
                raise InvalidRequest(f"a message of a picture may have {self._max_bytes} bytes, and not be compressed")
            end = _PREFIX.size + size
            if len(self._held) < end:
                return
            yield bytes(self._held[_PREFIX.size : end])
            del self._held[:end]
