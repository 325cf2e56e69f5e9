from __future__ import annotations

import grpc
import pytest

from shoal import errors
from shoal.errors import INTERNAL_MESSAGE, Code, ShoalError, from_status, to_status

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ShoalError) and kind is not ShoalError
]


def test_the_codes_are_those_of_grpc() -> None:
    assert {code.name: code.value for code in Code} == {code.name: code.value[0] for code in grpc.StatusCode}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {errors.Internal, errors.ConfigurationError}])
def test_an_error_survives_the_way_to_the_caller(kind: type[ShoalError]) -> None:
    code, message = to_status(kind("the reason"))
    back = from_status(code, message)
    assert type(back) is kind
    assert str(back) == "the reason"


@pytest.mark.parametrize(
    "error", [ValueError("secret"), errors.Internal("secret"), errors.ConfigurationError("secret")]
)
def test_what_a_caller_must_not_read_becomes_a_fixed_text(error: Exception) -> None:
    assert to_status(error) == (Code.INTERNAL, INTERNAL_MESSAGE)


def test_a_code_that_shoal_never_sends_is_internal() -> None:
    assert type(from_status(Code.DATA_LOSS, "x")) is errors.Internal
    assert type(from_status(999, "x")) is errors.Internal


def test_the_docstring_shows_every_kind() -> None:
    assert errors.__doc__
    assert all(kind.__name__ in errors.__doc__ for kind in KINDS)
