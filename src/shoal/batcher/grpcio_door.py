"""The batcher's other door, where no shared libpython lets it run inside Envoy: a grpcio generic handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from shoal.batcher.core import HEALTH_CHECK, hints_of, status_of
from shoal.runtime.rpc import STATUS

if TYPE_CHECKING:
    from shoal.batcher.core import Batcher, Headers

    Context = grpc.aio.ServicerContext[bytes, bytes]


class GenericHandler(grpc.GenericRpcHandler):
    """Takes any unary method; messages stay bytes."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """What serves one call."""
        method: str = details.method
        headers = {key: value for key, value in details.invocation_metadata or () if isinstance(value, str)}
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

    async def _health(self, _message: bytes, _context: object) -> bytes:
        return self._batcher.health
