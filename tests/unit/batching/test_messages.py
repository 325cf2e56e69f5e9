from __future__ import annotations

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from shoal.batching import wire
from shoal.batching.messages import bulk_part, decode, encode
from shoal.errors import InvalidRequest
from shoal.runtime.priority import BULK, INTERACTIVE


def test_protobuf_messages_and_bytes_come_back_as_they_went() -> None:
    assert decode(StringValue, encode(StringValue, StringValue(value="x"))) == StringValue(value="x")
    assert decode(bytes, encode(bytes, b"\xff")) == b"\xff"


def test_what_is_no_such_message_is_the_callers_fault() -> None:
    with pytest.raises(InvalidRequest, match=r"google\.protobuf\.StringValue"):
        decode(StringValue, b"\xff")


@pytest.mark.parametrize("reply", [None, b"x", Int64Value(value=1)])
def test_a_reply_of_another_kind_is_a_fault_of_ours(reply: object) -> None:
    with pytest.raises(TypeError, match="expected StringValue or an exception"):
        encode(StringValue, reply)


def test_a_reply_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "REPLY_BYTES", 10)
    with pytest.raises(ValueError, match="a reply of 11 bytes"):
        encode(bytes, bytes(11))


def test_the_bulk_part_of_a_batch_is_counted_by_items() -> None:
    assert bulk_part([INTERACTIVE, BULK, BULK, BULK]) == 0.75
    assert bulk_part([]) == 0.0
