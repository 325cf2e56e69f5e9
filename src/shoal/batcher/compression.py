"""Messages that a caller compressed, as gRPC's clients do once they are told to.

The rules are those of https://github.com/grpc/grpc/blob/master/doc/compression.md.
"""

from __future__ import annotations

import zlib
from typing import Final

from shoal.errors import InvalidRequest, ShoalError, Unimplemented

ACCEPTED: Final = "identity,deflate,gzip"
"""What ``grpc-accept-encoding`` answers."""
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class UnknownEncoding(Unimplemented):
    """The message is compressed in a way that isn't taken; ``ACCEPTED`` goes with it."""


class CompressedWithoutEncoding(ShoalError):
    """The flag of the message says that it is compressed, and no header how: INTERNAL, as the rules want it."""


def decompress(message: bytes, encoding: str, limit: int) -> bytes:
    """The message as it was before ``encoding``; never allocates more than ``limit`` and a byte.

    Raises:
        UnknownEncoding: it is none that is accepted.
        CompressedWithoutEncoding: it is ``identity``, or none.
        InvalidRequest: the message is broken, or larger than ``limit`` bytes.
    """
    if encoding in {"", "identity"}:
        raise CompressedWithoutEncoding("the message is flagged as compressed, but grpc-encoding doesn't say how")
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise UnknownEncoding(f"grpc-encoding {encoding[:32]!a} is not taken: expected one of {ACCEPTED}")
    reader = zlib.decompressobj(bits)
    try:
        plain = reader.decompress(message, limit + 1)
    except zlib.error:
        raise InvalidRequest(f"the message is not {encoding}, as grpc-encoding says") from None
    if len(plain) > limit:
        raise InvalidRequest(f"the message is larger than {limit} bytes once it is decompressed")
    if not reader.eof or reader.unused_data:
        raise InvalidRequest(f"the message is not one complete {encoding} stream")
    return plain
