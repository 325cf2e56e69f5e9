"""Sets of photographs for a benchmark: parts of the samples, the same in every run."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmarks.common.files import jpegs

if TYPE_CHECKING:
    from collections.abc import Callable

COUNTS = {"500x375": 256, "1280x854": 128, "4000x3000": 24, "mix": 256}
"""Sets, and how many pictures each has."""
_MIXED = ((500, 375), (640, 480), (800, 600), (1280, 854), (1920, 1080), (3000, 2000))
_MIXED_SHARES = (0.4, 0.2, 0.15, 0.15, 0.07, 0.03)
_PROGRESSIVE, _BROKEN = 0.05, 0.02
_QUALITY = 85


def make(name: str) -> list[bytes]:
    """The pictures of a set. Of ``mix`` 5 % are progressive, and 2 % are cut off in the middle."""
    random = np.random.default_rng(0)
    samples = [Image.open(path).convert("RGB") for path in jpegs()]
    sizes: Callable[[], tuple[int, int]]
    if name == "mix":
        sizes = lambda: _MIXED[random.choice(len(_MIXED), p=_MIXED_SHARES)]  # noqa: E731 - two of a kind
    else:
        width, height = map(int, name.split("x"))
        sizes = lambda: (width, height)  # noqa: E731
    pictures = []
    for number in range(COUNTS[name]):
        mixed = name == "mix"
        data = _part(
            samples[number % len(samples)], sizes(), random, progressive=mixed and random.random() < _PROGRESSIVE
        )
        pictures.append(data[: len(data) // 2] if mixed and random.random() < _BROKEN else data)
    return pictures


def _part(sample: Image.Image, size: tuple[int, int], random: np.random.Generator, *, progressive: bool) -> bytes:
    width, height = (round(side * random.uniform(0.6, 1.0)) for side in sample.size)
    left, upper = (
        int(random.integers(whole - part + 1)) for whole, part in zip(sample.size, (width, height), strict=True)
    )
    part = sample.resize(size, Image.Resampling.BICUBIC, (left, upper, left + width, upper + height))
    buffer = io.BytesIO()
    part.save(buffer, "JPEG", quality=_QUALITY, progressive=progressive)
    return buffer.getvalue()
