"""The error tree, and its one table to gRPC status codes.

ShoalError
├── InvalidRequest          the caller's input is wrong: bad uuid, unreadable or too large picture
├── NotFound                no such image, or no such model
├── Unimplemented           no such method, or a form of message that isn't taken
├── Unauthenticated         no key, an unknown key, or keys of two owners
├── PermissionDenied        a valid key, but not for this model
├── Overloaded              a queue is full, or a rate limit is reached
├── DeadlineExceeded        the caller's deadline passed, or can't be met
├── Cancelled               the caller went away
├── Unavailable             a store, a worker or an engine is away: trying again may help
├── Internal                anything else; its text never reaches a caller
└── ConfigurationError      a file or a command line is wrong (exit code 2); names file, line and key
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class Code(IntEnum):
    """The gRPC status codes (https://grpc.io/docs/guides/status-codes/)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ShoalError(Exception):
    """Base of all errors that Shoal raises on purpose. ``str(error)`` is fit for the caller to read."""

    code: ClassVar[Code] = Code.INTERNAL


class InvalidRequest(ShoalError):
    """The caller's input is wrong; the same call will fail again."""

    code = Code.INVALID_ARGUMENT


class NotFound(ShoalError):
    """No such image or model, or not one that this caller may know of."""

    code = Code.NOT_FOUND


class Unimplemented(ShoalError):
    """No such method, or a form of message that isn't taken."""

    code = Code.UNIMPLEMENTED


class Unauthenticated(ShoalError):
    """No key, an unknown key, or header and payload keys of two owners."""

    code = Code.UNAUTHENTICATED


class PermissionDenied(ShoalError):
    """The key is valid, but not for this model."""

    code = Code.PERMISSION_DENIED


class Overloaded(ShoalError):
    """A bounded queue is full, a rate limit is reached, or the deadline can't be met; try again later."""

    code = Code.RESOURCE_EXHAUSTED

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        """When another try may succeed, where that is known."""


class DeadlineExceeded(ShoalError):
    """The caller's deadline passed, or can't be met."""

    code = Code.DEADLINE_EXCEEDED


class Cancelled(ShoalError):
    """The caller went away."""

    code = Code.CANCELLED


class Unavailable(ShoalError):
    """A store, a worker or an engine is away; trying again may help."""

    code = Code.UNAVAILABLE


class Internal(ShoalError):
    """A fault of ours."""

    code = Code.INTERNAL


class ConfigurationError(ShoalError):
    """A file or a command line is wrong; the message names file, line and key where there is one."""

    code = Code.FAILED_PRECONDITION


RETRY_PUSHBACK = "grpc-retry-pushback-ms"
"""The trailer that carries ``Overloaded.retry_after_seconds`` (https://github.com/grpc/proposal/blob/master/A6-client-retries.md)."""

RETRY_AFTER = "retry-after"
"""The same in whole seconds, as HTTP's callers know it (RFC 9110, 10.2.3)."""

INTERNAL_MESSAGE = "internal error; the service's log has the details"

HTTP_STATUS = {
    Code.OK: 200, Code.CANCELLED: 499, Code.UNKNOWN: 500, Code.INVALID_ARGUMENT: 400, Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404, Code.ALREADY_EXISTS: 409, Code.PERMISSION_DENIED: 403, Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400, Code.ABORTED: 409, Code.OUT_OF_RANGE: 400, Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500, Code.UNAVAILABLE: 503, Code.DATA_LOSS: 500, Code.UNAUTHENTICATED: 401,
}  # fmt: skip
"""What callers of JSON get for each code, as Envoy's transcoder has it
(https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto)."""

_BY_CODE: dict[int, type[ShoalError]] = {
    kind.code: kind
    for kind in (
        InvalidRequest, NotFound, Unimplemented, Unauthenticated, PermissionDenied, Overloaded, DeadlineExceeded,
        Cancelled, Unavailable, Internal,
    )
}  # fmt: skip


def to_status(error: BaseException) -> tuple[Code, str]:
    """The status code and text that a caller gets for ``error``; unexpected errors get a fixed text."""
    if isinstance(error, ShoalError) and not isinstance(error, Internal | ConfigurationError):
        return error.code, str(error)
    return Code.INTERNAL, INTERNAL_MESSAGE


def from_status(code: int, message: str) -> ShoalError:
    """The error for a status that a service answered."""
    return _BY_CODE.get(code, Internal)(message)
