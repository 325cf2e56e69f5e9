"""Writes a ResNet of torchvision with random weights that are always the same. Needs torchvision.

python -m benchmarks.gpu.network NETWORK FILE

A .pt is TorchScript; a .pt2 a package of AOTInductor, compiled for the GPU of this machine, in half precision.
"""

from __future__ import annotations

import sys

import torch
import torchvision

from benchmarks.gpu.settings import BATCH, SIDE, architecture, suffix

_RESIDUAL_GAIN = 0.2
"""Of random weights: with 1, activations grow from block to block until fp16 has no numbers for them."""


class Network(torch.nn.Module):
    """Logits as probabilities, float32."""

    def __init__(self, name: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = getattr(torchvision.models, name)(weights=None).eval()
        for module in self.body.modules():
            if isinstance(module, torchvision.models.resnet.Bottleneck):
                torch.nn.init.constant_(module.bn3.weight, _RESIDUAL_GAIN)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """``(n, 3, 224, 224)`` to ``(n, 1000)``."""
        return torch.softmax(self.body(pictures).float(), dim=1)


def compile_ahead(network: Network, file: str, largest: int) -> None:
    """Writes a package for batches of 1 to ``largest``."""
    network = network.half().cuda().to(memory_format=torch.channels_last)
    frames = torch.zeros(largest, 3, SIDE, SIDE, dtype=torch.half, device="cuda")
    batch = torch.export.Dim("batch", min=1, max=largest)
    with torch.no_grad():
        program = torch.export.export(
            network, (frames.contiguous(memory_format=torch.channels_last),), dynamic_shapes=({0: batch},)
        )
        torch._inductor.aoti_compile_and_package(program, package_path=file)  # noqa: SLF001 - documented as it is


if __name__ == "__main__":
    name, file = sys.argv[1:]
    network = Network(architecture(name))
    if suffix(name) == ".pt2":
        compile_ahead(network, file, BATCH)
    else:
        torch.jit.script(network).save(file)
