"""Writes a ResNet of torchvision as TorchScript, with random weights that are always the same. Needs torchvision.

python -m benchmarks.gpu.network NETWORK FILE
"""

from __future__ import annotations

import sys

import torch
import torchvision

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


if __name__ == "__main__":
    torch.jit.script(Network(sys.argv[1])).save(sys.argv[2])
