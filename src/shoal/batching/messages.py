"""Messages of a unary method: a protobuf class, or plain bytes."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from shoal.batching import wire
from shoal.errors import InvalidRequest

Kind = TypeVar("Kind", bound=Message | bytes)


def decode(kind: type[Kind], message: bytes) -> Kind:
    """Reads a message.

    Raises:
        InvalidRequest: it is none of this kind.
    """
    if not issubclass(kind, Message):
        return kind(message)
    try:
        return kind.FromString(message)
    except DecodeError:
        raise InvalidRequest(f"the message is not a {kind.DESCRIPTOR.full_name}") from None


def encode(kind: type[Message | bytes], reply: object) -> bytes:
    """Writes a message.

    Raises:
        TypeError: it isn't one of ``kind``.
        ValueError: it is larger than ``wire.REPLY_BYTES``.
    """
    if not isinstance(reply, kind):
        raise TypeError(f"expected {kind.__name__} or an exception, not {type(reply).__name__}")
    message = reply.SerializeToString() if isinstance(reply, Message) else bytes(reply)
    if len(message) > wire.REPLY_BYTES:
        raise ValueError(f"a reply of {len(message)} bytes is larger than {wire.REPLY_BYTES}")
    return message
