"""How streams of calls end, and what calls are told."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from shoal.errors import RETRY_PUSHBACK, Code, Overloaded, ShoalError, Unavailable, from_status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import grpc.aio

    from shoal.batching.v1 import stream_pb2

    StreamCall = grpc.aio.StreamStreamCall[stream_pb2.CallChunk, stream_pb2.CallResultChunk]
    Trailers = Sequence[tuple[str, str | bytes]]

_REFUSALS = frozenset(
    {
        Code.UNAUTHENTICATED,
        Code.PERMISSION_DENIED,
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.RESOURCE_EXHAUSTED,
    }
)
"""Of a stream that ends so: what each of its calls would be told. Any other end says nothing of them."""
_MILLISECONDS = re.compile(r"[0-9]{1,10}")


class End(NamedTuple):
    """How a stream ended."""

    code: Code
    message: str
    trailers: Trailers = ()
    silent: bool = False
    """Whether the service never answered it."""

    def error(self) -> ShoalError:
        """What calls are told that it left without their results: to try again, unless it says something of them."""
        if self.code not in _REFUSALS:
            return Unavailable(f"the stream of calls ended: {self.message or self.code.name}")
        error = from_status(self.code, self.message or self.code.name)
        if isinstance(error, Overloaded):
            error.retry_after_seconds = pushback(self.trailers)
        return error


async def end_of(call: StreamCall) -> End:
    """What the service, or gRPC, says of a call that is over."""
    trailers = await call.trailing_metadata() or ()
    return End(Code((await call.code()).value[0]), await call.details() or "", tuple(trailers))


def error_of(result: stream_pb2.CallItemResult) -> ShoalError:
    """What the service answered to one call of a stream, where that isn't OK."""
    error = from_status(result.code, result.message or f"the service answered code {result.code}")
    if isinstance(error, Overloaded) and result.retry_after_us:
        error.retry_after_seconds = result.retry_after_us / 1e6
    return error


def pushback(trailers: Iterable[tuple[str, str | bytes]]) -> float | None:
    """When trying again may help, in seconds, as far as ``trailers`` tell it."""
    for name, value in trailers:
        if name == RETRY_PUSHBACK and _MILLISECONDS.fullmatch(str(value)):
            return int(value) / 1000
    return None
