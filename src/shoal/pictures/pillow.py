"""PNG and WebP files, read with Pillow: the values of its ``convert("RGB")``, with transparency dropped.

Both take a picture's word for how much memory and time it needs, so a worker calls this in a process of its own alone
(``decoder_process``). What a file says of its size is held against its length before anything is allocated.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, PngImagePlugin, WebPImagePlugin

from shoal.errors import InvalidRequest
from shoal.pictures.header import PictureFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from shoal.pictures.header import PictureHeader

    Pixels = NDArray[np.uint8]

_STRIP_BYTES: Final = 2**20
"""Pixels are converted in strips of about so much, so that a picture is in memory once in each form, not twice."""
_SIGNATURE_BYTES: Final = 8
_CHUNK_BYTES: Final = 12
"""What a PNG chunk has beside its payload: length, name and checksum, 4 bytes each."""
_KEPT: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
"""What the pixels come from. Texts, profiles and further frames are left out: they cost memory and change nothing."""
_DEFLATE_RATIO: Final = 1032
"""No stream of it grows by more (https://zlib.net/zlib_tech.html)."""
_BITS: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples a pixel, by the PNG's colour type."""
_HIGH_BYTE: Final = 8


def read(data: Buffer, header: PictureHeader) -> Pixels:
    """The stored picture in RGB, ``(h, w, 3)``; of an animation the first frame.

    Raises:
        InvalidRequest: it is truncated or damaged, or not what ``header`` says.
        MemoryError: there isn't enough for it.
    """
    try:
        with _open(memoryview(data).cast("B"), header) as picture:
            _check_size(picture, header)
            picture.load()
            return _pixels(picture)
    except (InvalidRequest, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise nearly everything, on purpose or not
        raise InvalidRequest(f"the {header.format} is truncated or damaged: {_reason(error)}") from error


def _check_size(picture: Image.Image, header: PictureHeader) -> None:
    if picture.size != (header.width, header.height):
        raise InvalidRequest(f"the {header.format} is damaged: it has two sizes")


def _open(view: memoryview, header: PictureHeader) -> Image.Image:
    if header.format is PictureFormat.PNG:
        return PngImagePlugin.PngImageFile(io.BytesIO(_essence(view)))
    return WebPImagePlugin.WebPImageFile(io.BytesIO(view))


def _essence(view: memoryview) -> bytes:
    """A PNG of the chunks that make its pixels, none of which claims more than there is."""
    kept: list[memoryview] = []
    seen: set[bytes] = set()
    size, position = 0, _SIGNATURE_BYTES
    while position + _CHUNK_BYTES <= len(view) and b"IEND" not in seen:
        length, name = struct.unpack_from(">I4s", view, position)
        end = position + _CHUNK_BYTES + length
        if name in _KEPT:
            if name == b"IHDR" and name in seen:
                raise InvalidRequest("the PNG is damaged: it has two headers")
            seen.add(name)
            kept.append(view[position:end])
            size += length if name == b"IDAT" else 0
        position = end
    _hold_size(view, min(size, len(view)))
    return bytes(view[:_SIGNATURE_BYTES]) + b"".join(kept)


def _hold_size(view: memoryview, compressed: int) -> None:
    """Raises InvalidRequest for a size that so many bytes of pixels can't fill."""
    width, height, depth, colour = struct.unpack_from(">IIBB", view, _SIGNATURE_BYTES + 8)
    row = -(-width * depth * _BITS.get(colour, 1) // 8)
    if row * height > _DEFLATE_RATIO * compressed:
        raise InvalidRequest(f"the PNG is truncated: {compressed:,} bytes are too few for {width} x {height} pixels")


def _pixels(picture: Image.Image) -> Pixels:
    width, height = picture.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP_BYTES // (4 * width))
    for top in range(0, height, rows):
        strip = picture.crop((0, top, width, min(height, top + rows)))
        pixels[top : top + rows] = _rgb(strip)
    return pixels


def _rgb(strip: Image.Image) -> NDArray[Any]:
    if strip.mode.startswith("I"):  # 16 bits of grey, of which Pillow's own conversion would show white
        return np.repeat((np.asarray(strip) >> _HIGH_BYTE).astype(np.uint8)[..., None], 3, axis=-1)
    return np.asarray(strip.convert("RGB"))


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
