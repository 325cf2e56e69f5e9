"""``shoal.v1.Models``: what is known of a model that this worker serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc

from shoal.batching.v1.batching_pb2 import ServedModel
from shoal.errors import Code
from shoal.runtime import rpc
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from shoal.modelconfig.model import ModelConfig, Tensor

    Context = grpc.aio.ServicerContext[pb.ModelRequest, Any]
    Describe = Callable[[ModelConfig], Any]

SERVICE: Final = "shoal.v1.Models"
_DATATYPES: Final = {"float16": "FP16", "float32": "FP32", "float64": "FP64", "bool": "BOOL", "bytes": "BYTES"}
"""The Open Inference Protocol's; the others are numpy's, in capitals."""


class ModelsService:
    """Answers from the configurations of the moment."""

    def __init__(self, configs: Callable[[], Mapping[str, ModelConfig]]) -> None:
        """``configs``: of the models that are served now."""
        self._configs = configs

    def rpc_handler(self) -> grpc.GenericRpcHandler:
        """What ``grpc.aio.Server.add_generic_rpc_handlers`` takes."""
        kinds: Mapping[str, Describe] = {"Get": model, "Metadata": metadata, "Ready": ready}
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    self._answering(describe),
                    request_deserializer=pb.ModelRequest.FromString,
                    response_serializer=lambda reply: reply.SerializeToString(),
                )
                for name, describe in kinds.items()
            },
        )

    def _answering(self, describe: Describe) -> Callable[[pb.ModelRequest, Context], Awaitable[Any]]:
        async def answer(request: pb.ModelRequest, context: Context) -> Any:  # a protobuf message
            config = self._configs().get(request.name)
            if config is None:
                text = f"no model {request.name[:64]!r} is served by this worker; another may serve it: try again"
                await context.abort(rpc.STATUS[Code.UNAVAILABLE], text)
            return describe(config)

        return answer


def model(config: ModelConfig) -> pb.Model:
    """With its labels."""
    return pb.Model(
        name=config.name,
        task=config.task.value,
        versions=config.versions or (config.version,),
        labels=config.labels,
        width=config.width,
        height=config.height,
        max_batch_size=config.batching.max_batch_size,
    )


def metadata(config: ModelConfig) -> pb.ModelMetadata:
    """As the Open Inference Protocol has it."""
    return pb.ModelMetadata(
        name=config.name,
        versions=map(str, config.versions or (config.version,)),
        platform=f"shoal_{config.backend}",
        inputs=[_tensor(config.input)],
        outputs=map(_tensor, config.outputs),
    )


def ready(config: ModelConfig) -> pb.ModelReady:
    """It is loaded."""
    return pb.ModelReady(name=config.name, ready=True)


def described(config: ModelConfig) -> ServedModel:
    """In brief, for the router's list."""
    return ServedModel(
        name=config.name,
        task=config.task.value,
        versions=config.versions or (config.version,),
        labels=len(config.labels),
    )


def _tensor(tensor: Tensor) -> pb.TensorMetadata:
    datatype = _DATATYPES.get(tensor.dtype, tensor.dtype.upper())
    return pb.TensorMetadata(name=tensor.name, datatype=datatype, shape=(-1, *tensor.shape))
