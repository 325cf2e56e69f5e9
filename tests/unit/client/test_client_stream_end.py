from __future__ import annotations

import pytest

from shoal.batching.v1 import stream_pb2
from shoal.client.stream_end import End, error_of, pushback
from shoal.errors import RETRY_PUSHBACK, Code, Internal, Overloaded, PermissionDenied, Unavailable


@pytest.mark.parametrize("code", Code)
def test_calls_that_a_stream_left_are_tried_again_unless_it_refused_them(code: Code) -> None:
    refused = {"UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}
    error = End(code, "why").error()
    assert isinstance(error, Unavailable) is (code.name not in refused)
    assert str(error).endswith("why")
    assert error.code == (code if code.name in refused else Code.UNAVAILABLE)


def test_an_end_without_a_text_names_its_code() -> None:
    assert str(End(Code.OK, "").error()) == "the stream of calls ended: OK"
    assert str(End(Code.PERMISSION_DENIED, "").error()) == "PERMISSION_DENIED"


def test_when_trying_again_may_help() -> None:
    error = End(Code.RESOURCE_EXHAUSTED, "full", ((RETRY_PUSHBACK, "1500"),)).error()
    assert isinstance(error, Overloaded)
    assert error.retry_after_seconds == 1.5
    assert [pushback([(RETRY_PUSHBACK, text)]) for text in ("-1", "", "9" * 11, "x")] == [None] * 4
    assert pushback([("other", "5")]) is None


@pytest.mark.parametrize(
    ("code", "kind", "after"),
    [(8, Overloaded, 0.25), (7, PermissionDenied, None), (2, Internal, None), (99, Internal, None)],
)
def test_a_result_that_is_not_ok(code: int, kind: type[Exception], after: float | None) -> None:
    error = error_of(stream_pb2.CallItemResult(index=1, code=code, retry_after_us=250_000))
    assert isinstance(error, kind)
    assert str(error) == f"the service answered code {code}"
    assert getattr(error, "retry_after_seconds", None) == after
    assert str(error_of(stream_pb2.CallItemResult(code=code, message="why"))) == "why"
