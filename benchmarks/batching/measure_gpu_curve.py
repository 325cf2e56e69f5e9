"""A GPU's time for a batch, by its size: the curve of the scripted engine.

python benchmarks/batching/measure_gpu_curve.py RESULT.json

Needs a CUDA GPU, torch and torchvision, and nothing of Shoal. One batch in flight: uint8 pictures to the GPU,
ResNet-152 (random weights, which cost what trained ones do) in fp16 as a CUDA graph, logits back.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
from torchvision.models import resnet152

SIZES = (1, 2, 4, 8, 16, 32, 64)
ROUNDS = 100
WARM_UP_ROUNDS = 10
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Graph:
    """The model, captured for batches of one size."""

    def __init__(self, model: torch.nn.Module, size: int) -> None:
        self._host = torch.randint(0, 256, (size, 224, 224, 3), dtype=torch.uint8).pin_memory()
        self._input = self._host.cuda()
        self._model = model
        self._mean, self._std = (torch.tensor(of, device="cuda").view(1, 3, 1, 1) for of in (MEAN, STD))
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                self._forward()
        side.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = self._forward()

    def run(self) -> None:
        """One batch, from pictures in host memory to logits in host memory."""
        self._input.copy_(self._host, non_blocking=True)
        self._graph.replay()
        self._output.cpu()

    def _forward(self) -> torch.Tensor:
        pictures = self._input.permute(0, 3, 1, 2).float()
        normal = ((pictures - self._mean) / self._std).half().contiguous(memory_format=torch.channels_last)
        answer: torch.Tensor = self._model(normal)
        return answer


def measure(graph: Graph) -> float:
    """Median seconds of a batch."""
    taken = []
    for number in range(WARM_UP_ROUNDS + ROUNDS):
        started = time.perf_counter()
        graph.run()
        if number >= WARM_UP_ROUNDS:
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    """Measures and writes the result."""
    with torch.inference_mode():
        model = resnet152(weights=None).half().cuda().eval().to(memory_format=torch.channels_last)
        seconds = {size: measure(Graph(model, size)) for size in SIZES}
    result = {
        "command": "python benchmarks/batching/measure_gpu_curve.py RESULT.json",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__},
        "settings": {"model": "resnet152, fp16, 224x224, one batch in flight", "rounds": ROUNDS},
        "batch_ms": {str(size): round(1000 * one, 3) for size, one in seconds.items()},
        "images_per_s": {str(size): round(size / one, 1) for size, one in seconds.items()},
    }
    Path(sys.argv[1]).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
