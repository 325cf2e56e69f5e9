"""What a GPU runner does with ``encoded_rows``, done by Pillow: for tests, in Triton's Python backend and without.

It takes what a device takes, and refuses (status 1) a JPEG with the comment ``REFUSED`` and what it can't open. Like a
device it shows what it can of a damaged file.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageFile

try:
    import encoded_rows  # beside us, where Triton runs this
except ImportError:
    from shoal.engine.triton import encoded_rows

REFUSED = b"the device can't decode this"
_FILTERS = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(
    content: np.ndarray[Any, Any], shape: tuple[int, ...], dtype: str, mean: Any = 0.0, std: Any = 1.0
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The rows as the model's input, ``(n, *shape)`` of ``dtype``, and the status of each."""
    channels_last = shape[-1] == 3
    height, width = shape[:2] if channels_last else shape[1:]
    pixel_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    entries = encoded_rows.read(content, len(content), pixel_bytes, (width, height))
    rows, statuses = np.zeros((len(content), *shape), dtype), np.zeros(len(content), np.int32)
    for number, entry in enumerate(entries):
        data = encoded_rows.content_of(content, entry)
        if entry["kind"] == encoded_rows.PIXELS:
            rows[number] = data.view(dtype).reshape(shape)
            continue
        frame = _frame(data.tobytes(), entry, (height, width))
        if frame is None:
            statuses[number] = encoded_rows.NOT_DECODED
        else:
            rows[number] = frame if channels_last else ((frame - np.array(mean)) / np.array(std)).transpose(2, 0, 1)
    return rows, statuses


def _frame(data: bytes, entry: Any, sides: tuple[int, int]) -> np.ndarray[Any, Any] | None:
    if REFUSED in data:
        return None
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        image = Image.open(io.BytesIO(data), formats=["JPEG"])
        assert image.size == (entry["width"], entry["height"])
        assert "progression" not in image.info
        assert image.mode in {"L", "RGB"}
        image = image.convert("RGB")
    except OSError:
        return None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    box = tuple(float(entry[edge]) for edge in ("left", "upper", "right", "lower"))
    size = int(entry["columns"]), int(entry["rows"])
    small = image.resize(size, _FILTERS[entry["filter"]], box)
    turn = _UPRIGHT.get(int(entry["orientation"]))
    small = small if turn is None else small.transpose(turn)
    frame = np.zeros((*sides, 3), np.uint8)
    frame[: small.height, : small.width] = small
    return frame
