"""Slots in shared memory, which a Triton reads and writes in place.

A slot is one region, and another for each large output of known size, registered at its first use, so that a request is
a few hundred bytes. Small outputs come in the messages; so does everything where the server refuses shared memory. A
slot is reused only when the server has answered: until then it may read and write there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from shoal.engine.limits import row_bytes
from shoal.engine.slots import ArraySlot
from shoal.errors import ConfigurationError
from shoal.modelconfig.pbtxt import DTYPES

if TYPE_CHECKING:
    import asyncio

    from numpy.typing import NDArray

    from shoal.engine import Inference
    from shoal.engine.triton.shared_memory import Region
    from shoal.engine.triton.sharing import Sharing
    from shoal.modelconfig.model import ModelConfig

PROTOCOL_NAMES: Final = {dtype: name.removeprefix("TYPE_") for name, dtype in DTYPES.items()}
"""The v2 protocol's name of numpy's."""
_LARGE_BYTES: Final = 2**16
"""An output of this size, over the largest batch, is worth a region; below, a message is as good."""


class TritonSlot(ABC):
    """The memory of a slot; the server reads it in place where it may."""

    def __init__(self, config: ModelConfig, sharing: Sharing, size: int, most: int | None = None) -> None:
        """``size``: bytes of input; where they are shared, there may be up to ``most``."""
        rows = config.batching.max_batch_size
        self._config = config
        self.region = sharing.region(most or size, size)
        """None: the slot is memory of our own."""
        self._memory: NDArray[np.uint8] = (
            np.zeros(size, np.uint8) if self.region is None else np.frombuffer(self.region.memory, np.uint8)
        )
        self.results: dict[str, Region] = {}
        """The regions of outputs that don't come in messages."""
        self._large = {
            output.name: rows * row_bytes(output)
            for output in config.outputs
            if rows * row_bytes(output) >= _LARGE_BYTES
        }
        self.shared = False
        """Whether the server knows the regions."""
        self.doubtful = False
        """Whether a call broke off: the server may still write an answer."""
        self.running: asyncio.Task[Inference] | None = None
        """What is at the server now, or was last."""
        self.away = False
        """The last try found no server."""

    @abstractmethod
    def row(self, number: int) -> NDArray[Any]:
        """See ``shoal.engine.Slot``."""

    @abstractmethod
    def move(self, source: int, target: int) -> None:
        """See ``shoal.engine.Slot``."""

    def has_files(self, size: int) -> bool:  # noqa: ARG002 - others count
        """Whether the server is to decode any of the first ``size`` rows."""
        return False

    @abstractmethod
    def ask_for(self, request: Any, size: int) -> None:  # a protobuf message
        """Puts the first ``size`` rows into a ``ModelInferRequest``, or says there where they lie."""

    def clear(self) -> None:  # noqa: B027 - most have nothing to forget
        """Forgets the rows: a batch begins."""

    def _put(self, request: Any, tensor: Any, content: NDArray[np.generic]) -> None:  # protobuf messages
        """``content``, which begins where the slot's memory does, becomes that of ``tensor``."""
        if self.shared and self.region is not None:
            place(tensor, self.region, content.nbytes)
        else:
            request.raw_input_contents.append(content.tobytes())

    async def share(self, sharing: Sharing) -> None:
        """Registers the regions, unless they are known or of no use. Raises Unavailable."""
        if self.region is None:
            return
        if self.doubtful:
            sharing.drop(self.results.values())
            self.results.clear()
            self.shared = self.doubtful = False
        if self.shared:
            return
        try:
            for name in self._large.keys() - self.results.keys():
                if (region := sharing.region(self._large[name])) is not None:
                    self.results[name] = region
            for region in (self.region, *self.results.values()):
                await sharing.client.register(region.name, region.size)
            self.shared = True
            sharing.confirm()
        except ConfigurationError as error:
            sharing.stop(str(error))
            self.close(sharing)

    def close(self, sharing: Sharing) -> None:
        """Takes the regions away."""
        if self.region is not None:
            sharing.drop([self.region, *self.results.values()])
            self.results.clear()
            self.region = None
        self.shared = False


class PixelSlot(ArraySlot, TritonSlot):
    """Implements ``shoal.engine.Slot``: rows of pixels, one behind the other."""

    def __init__(self, config: ModelConfig, sharing: Sharing) -> None:
        most = config.batching.max_batch_size
        super().__init__(config, sharing, most * row_bytes(config.input))
        self.input = self._memory.view(config.input.dtype).reshape(most, *config.input.shape)

    def ask_for(self, request: Any, size: int) -> None:  # a protobuf message
        """Puts the picture input into a ``ModelInferRequest``."""
        picture = self._config.input
        shape = [size, *picture.shape]
        tensor = request.inputs.add(name=picture.name, datatype=PROTOCOL_NAMES[picture.dtype], shape=shape)
        self._put(request, tensor, self.input[:size])


def place(tensor: Any, region: Region, size: int) -> None:  # a protobuf message
    """Says that ``tensor`` lies in ``region``."""
    tensor.parameters["shared_memory_region"].string_param = region.name
    tensor.parameters["shared_memory_byte_size"].int64_param = size
