"""What a profile feeds to a Triton: made once, and sent as often as it takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from tritonclient.grpc import service_pb2 as v2

from shoal.engine.triton.shared_memory import Region
from shoal.engine.triton.slot import place
from shoal.errors import ConfigurationError
from shoal.modelconfig import encoded, pbtxt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from shoal.profile.inputs import Fill
    from shoal.triton.client import TritonClient


class SharedInput:
    """The inputs of one batch in flight: shared memory, where ``share`` got it, or bytes that go in each message.

    Args:
        config: The model's ``inference.ModelConfig``.
        largest: The most images in a batch.
        fills: What fills each input.
        parameters: Sent with each request.
    """

    def __init__(
        self,
        config: Any,  # a protobuf message
        largest: int,
        fills: list[Fill],
        parameters: Mapping[str, str],
    ) -> None:
        self._config = config
        self._parameters = parameters
        self._largest = largest
        self._fills = fills
        self._requests: dict[int, Any] = {}
        self.regions: list[Region] = []

    async def share(self, client: TritonClient) -> None:
        """Raises OSError or ConfigurationError where that can't be, Unavailable where the server is away."""
        for tensor, fill in zip(encoded.pictures(self._config), self._fills, strict=True):
            shape, kind = self._shape(tensor, self._largest), dtype(tensor)
            region = Region(math.prod(shape) * kind.itemsize)
            self.regions.append(region)
            fill(np.frombuffer(region.memory, kind).reshape(shape))
            await client.register(region.name, region.size)

    def unshare(self) -> list[str]:
        """Takes the memory away; the names that the server may know it by."""
        for region in self.regions:
            region.close()
        names = [region.name for region in self.regions]
        self.regions.clear()
        return names

    def request(self, batch: int) -> Any:  # a protobuf message
        """A ``ModelInferRequest`` with ``batch`` images; the same one each time."""
        if batch not in self._requests:
            self._requests[batch] = self._make(batch)
        return self._requests[batch]

    def _make(self, batch: int) -> Any:  # a protobuf message
        request = v2.ModelInferRequest(model_name=self._config.name)
        for name, value in self._parameters.items():
            request.parameters[name].string_param = value
        for index, tensor in enumerate(encoded.pictures(self._config)):
            shape, kind = self._shape(tensor, batch), dtype(tensor)
            told = request.inputs.add(name=tensor.name, datatype=pbtxt.datatype(tensor), shape=shape)
            if self.regions:
                place(told, self.regions[index], math.prod(shape) * kind.itemsize)
            else:
                request.raw_input_contents.append(_content(shape, kind, self._fills[index]))
        for output in encoded.answers(self._config):
            request.outputs.add(name=output.name)
        return request

    def _shape(self, tensor: Any, batch: int) -> tuple[int, ...]:  # a protobuf message
        return (*([batch] if self._config.max_batch_size else []), *tensor.dims)


def dtype(tensor: Any) -> np.dtype[Any]:  # a protobuf message
    """The data type of an input of a ``ModelConfig``.

    Raises:
        ConfigurationError: it is no number.
    """
    name = pbtxt.enum_name(tensor, "data_type")
    if name not in pbtxt.DTYPES:
        raise ConfigurationError(f"the input {tensor.name!r} is {name}; numbers can be made up, that can't")
    return np.dtype(pbtxt.DTYPES[name])


def _content(shape: tuple[int, ...], kind: np.dtype[Any], fill: Fill) -> bytes:
    rows: NDArray[Any] = np.zeros(shape, kind)
    fill(rows)
    return rows.tobytes()
