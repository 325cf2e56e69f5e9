"""The batcher's other door, where no shared libpython lets it run inside Envoy: a grpcio generic handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from shoal.batcher.core import HEALTH_CHECK, hints_of, status_of
from shoal.batcher.door import GoneError
from shoal.batching import wire
from shoal.runtime.rpc import STATUS

if TYPE_CHECKING:
    from shoal.batcher.core import Batcher, Headers

    Context = grpc.aio.ServicerContext[bytes, bytes]


class GenericHandler(grpc.GenericRpcHandler):
    """Takes any unary method, and streams of its calls; messages stay bytes."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """What serves one call."""
        method: str = details.method
        headers = {key: value for key, value in details.invocation_metadata or () if isinstance(value, str)}
        if method.endswith(wire.STREAM):
            return grpc.stream_stream_rpc_method_handler(self._stream(method, headers))
        return grpc.unary_unary_rpc_method_handler(
            self._health if method == HEALTH_CHECK else self._answer(method, headers)
        )

    def _answer(self, method: str, headers: Headers) -> Any:  # grpc's stubs know synchronous ones only
        async def answer(message: bytes, context: Context) -> bytes:
            try:
                return await self._batcher.call(method, headers, message, context.time_remaining())
            except Exception as error:
                code, text = status_of(error)
                await context.abort(STATUS[code], text, hints_of(error))
                raise  # not reached: abort raises

        return answer

    def _stream(self, method: str, headers: Headers) -> Any:  # as above
        async def stream(_: object, context: Context) -> None:
            try:
                await self._batcher.stream(method, headers, _StreamDoor(context))
            except GoneError:
                return
            except Exception as error:
                code, text = status_of(error)
                await context.abort(STATUS[code], text, hints_of(error))

        return stream

    async def _health(self, _message: bytes, _context: object) -> bytes:
        return self._batcher.health


class _StreamDoor:
    """Implements ``shoal.batcher.door.Door``."""

    cancels_reads = True

    def __init__(self, context: Context) -> None:
        self._context = context
        self._begun = False

    async def read(self) -> bytes | None:
        """The next message. Raises as its protocol says."""
        if not self._begun:
            self._begun = True
            await self._context.send_initial_metadata(())  # some callers wait for it before they send anything
        message = await self._context.read()
        return message if isinstance(message, bytes) else None

    async def write(self, message: bytes) -> None:
        """Waits while the transport is full; gRPC cancels the whole handler when its caller leaves."""
        await self._context.write(message)
