"""A lane: a CUDA stream with a graph of the network in it, and the memory for one batch. Needs torch, torchvision.

Several lanes in one process overlap on the GPU; processes take turns on it. Used inside Triton (``model.py``) and
without any server (``raw.py``), so that both run the same code.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torchvision

if TYPE_CHECKING:
    import numpy as np

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SHAPE = (224, 224, 3)
_RESIDUAL_GAIN = 0.2
"""Of random weights: with 1, activations grow from block to block until fp16 has no numbers for them."""


def make_lanes(network: str, count: int, size: int) -> list[Lane]:
    """Lanes for batches of up to ``size`` pictures; they share the weights, which are random and always the same."""
    torch.set_num_threads(1)  # a copy of a megabyte is no work for a team of threads, of which each lane had one
    torch.manual_seed(0)
    model = getattr(torchvision.models, network)(weights=None)
    for module in model.modules():
        if isinstance(module, torchvision.models.resnet.Bottleneck):
            torch.nn.init.constant_(module.bn3.weight, _RESIDUAL_GAIN)
    model = model.half().cuda().eval().to(memory_format=torch.channels_last)
    reach = Reach()
    return [Lane(model, size, reach) for _ in range(count)]


def pinned(pictures: np.ndarray) -> torch.Tensor:
    """A copy in memory that the GPU reads by itself."""
    return torch.from_numpy(pictures).pin_memory()


def received(tensor: Any) -> torch.Tensor:
    """An input of Triton's, where it is."""
    return torch.from_dlpack(tensor)


class Reach:
    """What of this process's memory the GPU can read by itself."""

    def __init__(self) -> None:
        self._mappings: dict[tuple[int, int], bool] = {}

    def holds(self, pictures: torch.Tensor) -> bool:
        """Whether it can read ``pictures`` in place. Tries, once, to make it so for the mapping that they lie in.

        Triton hands inputs over in a mapping of shared memory that stays, so nothing has to be copied out of it.
        """
        begin = pictures.data_ptr()
        end = begin + pictures.nbytes
        for (first, last), usable in self._mappings.items():
            if first <= begin and end <= last:
                return usable
        if pictures.is_pinned():
            return True
        mapping = _mapping(begin, end)
        if mapping is None:
            return False
        self._mappings[mapping] = usable = _register(*mapping)
        reads = "reads" if usable else "can't read"
        print(f"lanes: the GPU {reads} {mapping[1] - mapping[0]:,} bytes of shared memory in place", file=sys.stderr)
        return usable


def _register(first: int, last: int) -> bool:
    if int(torch.cuda.cudart().cudaHostRegister(first, last - first, 0)) == 0:
        return True
    with suppress(RuntimeError):  # the error would be told to whoever calls CUDA next
        torch.zeros(1, device="cuda")
    return False


class Lane:
    """Runs one batch at a time."""

    def __init__(self, model: Any, size: int, reach: Reach) -> None:
        self._model = model
        self._reach = reach
        self._stream = torch.cuda.Stream()
        self._staging = torch.zeros((size, *SHAPE), dtype=torch.uint8).pin_memory()
        self._input = self._staging.cuda()
        self._mean, self._std = (torch.tensor(of, device="cuda").view(1, 3, 1, 1) for of in (MEAN, STD))
        # Whoever waits for the first sleeps until an interrupt, for the second looks all the time: sooner, for a core.
        self._asleep, self._awake = torch.cuda.Event(blocking=True), torch.cuda.Event()
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            for _ in range(3):
                self._forward()
            self._stream.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._output = self._forward()
            self._answer = torch.empty(self._output.shape, dtype=torch.float32).pin_memory()
        self._stream.synchronize()
        self._rows = 0

    def start(self, pictures: torch.Tensor) -> None:
        """Sends a batch, uint8 ``(n, 224, 224, 3)``, to the GPU and returns at once.

        ``pictures`` must stay as they are until ``wait`` returns.
        """
        self._rows = len(pictures)
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            if not self._reach.holds(pictures):
                pictures = self._staging[: self._rows].copy_(pictures)
            self._input[: self._rows].copy_(pictures, non_blocking=True)
            self._graph.replay()
            self._answer.copy_(self._output, non_blocking=True)
            self._asleep.record(self._stream)
            self._awake.record(self._stream)

    def wait(self, *, awake: bool) -> torch.Tensor:
        """The logits, float32 ``(n, 1000)``, the caller's own; the next batch may be started then."""
        (self._awake if awake else self._asleep).synchronize()
        return self._answer[: self._rows].clone()

    def _forward(self) -> torch.Tensor:
        pictures = self._input.permute(0, 3, 1, 2).float()
        normal = ((pictures - self._mean) / self._std).half().contiguous(memory_format=torch.channels_last)
        logits: torch.Tensor = self._model(normal).float()
        return logits


def _mapping(begin: int, end: int) -> tuple[int, int] | None:
    """The shared mapping of this process that holds these addresses."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        addresses, permissions, *_ = line.split()
        first, last = (int(word, 16) for word in addresses.split("-"))
        if first <= begin < last:
            return (first, last) if end <= last and permissions.startswith("rw") and permissions[3] == "s" else None
    return None
