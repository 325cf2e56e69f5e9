"""Slots in shared memory, which a Triton reads and writes in place.

A slot is one region, and another for each large output of known size, registered at its first use, so that a request is
a few hundred bytes. Small outputs come in the messages; so does everything where the server refuses shared memory. A
slot is reused only when the server has answered: until then it may read and write there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from shoal.engine.limits import row_bytes
from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    import asyncio

    from numpy.typing import NDArray

    from shoal.engine import Inference
    from shoal.engine.triton.shared_memory import Region
    from shoal.engine.triton.sharing import Sharing
    from shoal.modelconfig.model import ModelConfig

_LARGE_BYTES: Final = 2**16
"""An output of this size, over the largest batch, is worth a region; below, a message is as good."""


class TritonSlot:
    """Implements ``shoal.engine.Slot``; the server reads its memory in place where it may."""

    def __init__(self, config: ModelConfig, sharing: Sharing) -> None:
        most = config.batching.max_batch_size
        shape, dtype = (most, *config.input.shape), np.dtype(config.input.dtype)
        self.region = sharing.region(most * row_bytes(config.input))
        """None: the slot is memory of our own."""
        self.input: NDArray[np.generic] = (
            np.zeros(shape, dtype) if self.region is None else np.frombuffer(self.region.memory, dtype).reshape(shape)
        )
        self.results: dict[str, Region] = {}
        """The regions of outputs that don't come in messages."""
        self._large = {
            output.name: most * row_bytes(output)
            for output in config.outputs
            if most * row_bytes(output) >= _LARGE_BYTES
        }
        self.shared = False
        """Whether the server knows the regions."""
        self.doubtful = False
        """Whether a call broke off: the server may still write an answer."""
        self.running: asyncio.Task[Inference] | None = None
        """What is at the server now, or was last."""
        self.away = False
        """The last try found no server."""

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


def place(tensor: Any, region: Region, size: int) -> None:  # a protobuf message
    """Says that ``tensor`` lies in ``region``."""
    tensor.parameters["shared_memory_region"].string_param = region.name
    tensor.parameters["shared_memory_byte_size"].int64_param = size
