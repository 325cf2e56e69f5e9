"""Messages of a unary method: a protobuf class, or plain bytes; and how urgent items are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

from google.protobuf.message import DecodeError, Message

from shoal.batching import wire
from shoal.batching.v1 import batching_pb2
from shoal.errors import InvalidRequest
from shoal.runtime.priority import BULK, INTERACTIVE, Priority

if TYPE_CHECKING:
    from collections.abc import Iterable

Kind = TypeVar("Kind", bound=Message | bytes)


_BULK: Final = batching_pb2.PRIORITY_BULK


def priority_of(item: batching_pb2.BatchItem) -> Priority:
    """How urgent an item is; a level that only newer batchers know counts as interactive."""
    return BULK if item.priority == _BULK else INTERACTIVE


def most_urgent(priorities: Iterable[Priority]) -> Priority:
    """The level of a batch of such items: with any that is interactive it is so, too."""
    return BULK if all(each is BULK for each in priorities) else INTERACTIVE


def bulk_part(priorities: Iterable[Priority]) -> float:
    """Which part of such items is bulk, from 0 to 1; 0 where there is no item."""
    levels = list(priorities)
    return sum(each is BULK for each in levels) / max(1, len(levels))


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
