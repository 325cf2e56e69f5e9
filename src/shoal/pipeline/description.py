"""``shoal.v1.Models`` of a pipeline: questions about it are asked as a model's are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc

from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

TASK: Final = "pipeline"
"""What stands where a model's task would."""


def rpc_handler(name: str, ready: Callable[[], bool]) -> grpc.GenericRpcHandler:
    """What ``grpc.aio.Server.add_generic_rpc_handlers`` takes."""
    answers: dict[str, Callable[[], Message]] = {
        "Get": lambda: pb.Model(name=name, task=TASK),
        "Metadata": lambda: pb.ModelMetadata(name=name, platform=f"shoal_{TASK}"),
        "Ready": lambda: pb.ModelReady(name=name, ready=ready()),
    }
    return grpc.method_handlers_generic_handler(
        "shoal.v1.Models", {method: _handler(answer) for method, answer in answers.items()}
    )


def _handler(answer: Callable[[], Message]) -> grpc.RpcMethodHandler[Any, Any]:
    async def behave(_: bytes, __: object) -> Message:
        return answer()

    behavior: Callable[..., Awaitable[Any]] = behave
    return grpc.unary_unary_rpc_method_handler(
        behavior, response_serializer=lambda message: message.SerializeToString()
    )
