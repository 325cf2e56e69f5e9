"""What all measurements on a GPU have in common."""

from __future__ import annotations

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SIDE = 224
"""Pixels, of frames."""
FRAME = (SIDE, SIDE, 3)
CLASSES = 1000
BATCH, LANES = 64, 4
RUNNER = {
    "shoal.runner.input": "FP16 NCHW",
    "shoal.runner.mean": " ".join(map(str, MEAN)),
    "shoal.runner.std": " ".join(map(str, STD)),
}
"""Parameters of the runner: what the network takes."""
_COMPILED = "-compiled"


def suffix(network: str) -> str:
    """Of the file of a network, which is compiled ahead of time if its name says so."""
    return ".pt2" if network.endswith(_COMPILED) else ".pt"


def architecture(network: str) -> str:
    """Its name in torchvision."""
    return network.removesuffix(_COMPILED)
