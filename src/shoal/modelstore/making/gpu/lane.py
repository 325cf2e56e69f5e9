"""A lane: a stream of the GPU, the frames of one batch, and a CUDA graph of the network for each size of batch.

Lanes of one process overlap on the GPU and share the weights; processes take turns on it. Needs torch.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from network import Network

_log = logging.getLogger(__name__)
_WARM_UPS = 3
"""Runs before a graph is made of one: libraries choose their kernels meanwhile."""


def sizes_up_to(most: int) -> list[int]:
    """Sizes of batches that there are graphs for: powers of two, and the largest."""
    return sorted({most, *(2**power for power in range(most.bit_length()) if 2**power <= most)})


class Lane:
    """Runs one batch at a time."""

    def __init__(
        self,
        network: Network,
        size: int,
        frame: Sequence[int],
        outputs: Mapping[str, torch.dtype],
        device: int,
        *,
        stays: bool = False,
    ) -> None:
        """Records the graphs.

        Args:
            network: What to run; shared.
            size: The largest batch.
            frame: Height, width, channels.
            outputs: The data type of each, in the network's order.
            device: The GPU's number.
            stays: Whether the outputs are to stay on the GPU.
        """
        self._network = network
        self._outputs = outputs
        self._stays = stays
        self.stream = torch.cuda.Stream(device)
        self.frames = torch.zeros((size, *frame), dtype=torch.uint8, device=device)
        """To be filled before ``start``."""
        self._begun, self._ended = (torch.cuda.Event(enable_timing=True, blocking=True) for _ in range(2))
        self._runs: dict[int, Callable[[], Sequence[torch.Tensor]]] = {}
        pool = torch.cuda.graph_pool_handle()
        with torch.inference_mode(), torch.cuda.stream(self.stream):
            for each in reversed(sizes_up_to(size)):
                self._runs[each] = self._prepared(each, pool)
            largest = self._runs[size]()
            self._answers = [torch.empty(output.shape, dtype=output.dtype).pin_memory() for output in largest]
        self.stream.synchronize()
        self._rows = 0

    def start(self, rows: int, prepared: torch.cuda.Event) -> None:
        """Runs the first ``rows`` frames once ``prepared`` has come, and returns at once."""
        self._rows = rows
        size = min(each for each in self._runs if each >= rows)
        with torch.inference_mode(), torch.cuda.stream(self.stream):
            self.stream.wait_event(prepared)
            self._begun.record(self.stream)
            outputs = self._runs[size]()
            if self._stays:
                self._answers = [output[:rows].clone() for output in outputs]
            else:
                for answer, output in zip(self._answers, outputs, strict=True):
                    answer[:rows].copy_(output[:rows], non_blocking=True)
            self._ended.record(self.stream)

    def wait(self) -> tuple[dict[str, torch.Tensor], float]:
        """The outputs, the caller's own, and the seconds that they took; the next batch may be started then."""
        self._ended.synchronize()
        own = self._answers if self._stays else [answer[: self._rows].clone() for answer in self._answers]
        answers = dict(zip(self._outputs, own, strict=True))
        return answers, self._begun.elapsed_time(self._ended) / 1000

    def _prepared(self, size: int, pool: Any) -> Callable[[], Sequence[torch.Tensor]]:
        for _ in range(_WARM_UPS):
            self._forward(size)
        self.stream.synchronize()
        if self._network.recordable:
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=pool, stream=self.stream):
                    outputs = self._forward(size)
            except RuntimeError as error:
                _log.warning("no CUDA graph can be made of this network, so it runs without: %s", error)
                self._network.recordable = False
            else:

                def replay() -> Sequence[torch.Tensor]:
                    graph.replay()
                    return outputs

                return replay
        return lambda: self._forward(size)

    def _forward(self, size: int) -> list[torch.Tensor]:
        found = self._network(self.frames[:size])
        return [output.to(dtype) for output, dtype in zip(found, self._outputs.values(), strict=True)]
