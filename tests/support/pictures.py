"""Pictures in every shape that a caller may send."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import ModelConfig, Resize, Task, Tensor

QUADRANT_COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))
"""Upper left, upper right, lower left, lower right of ``quadrants``."""


def config(height: int = 32, width: int = 32, **changes: Any) -> ModelConfig:
    """A model's configuration; there is no such model."""
    given = {
        "name": "model",
        "version": 1,
        "path": Path("model.onnx"),
        "task": Task.CLASSIFICATION,
        "input": Tensor("image", "uint8", (height, width, 3)),
        "outputs": (Tensor("logits", "float32", (10,)),),
        "batching": BatchingSettings(),
        "resize": Resize.STRETCH,
    }
    return ModelConfig(**(given | changes))


def quadrants(width: int = 120, height: int = 80) -> Image.Image:
    """Four quadrants, each of its own colour."""
    pixels = np.empty((height, width, 3), np.uint8)
    for index, colour in enumerate(QUADRANT_COLOURS):
        rows = slice(0, height // 2) if index < 2 else slice(height // 2, None)
        pixels[rows, (index % 2) * width // 2 : (index % 2 + 1) * width // 2] = colour
    return Image.fromarray(pixels)


def encode(image: Image.Image, form: str = "JPEG", orientation: int = 1, **options: Any) -> bytes:
    """The file of ``image``, with an EXIF orientation if it is not 1."""
    if orientation != 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, form, **({"quality": 95} if form == "JPEG" else {}) | options)
    return buffer.getvalue()


def stored(upright: Image.Image, orientation: int) -> Image.Image:
    """What a camera stores so that ``orientation`` shows ``upright``: the inverse of ``ImageOps.exif_transpose``."""
    inverse = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    return upright if inverse is None else upright.transpose(inverse)


def resized_header(jpeg: bytes, width: int, height: int) -> bytes:
    """``jpeg`` with another size in its frame header: a decompression bomb."""
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        found = jpeg.find(marker)
        if found >= 0:
            return jpeg[: found + 5] + struct.pack(">HH", height, width) + jpeg[found + 9 :]
    raise AssertionError("no frame header")


def many_scans(jpeg: bytes, count: int) -> bytes:
    """A progressive ``jpeg`` whose last scan comes ``count`` times more."""
    last = jpeg.rfind(b"\xff\xda")
    return jpeg[:-2] + jpeg[last:-2] * count + b"\xff\xd9"
