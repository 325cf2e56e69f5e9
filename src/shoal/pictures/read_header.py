"""Reads a picture's header in microseconds, before anything is decoded.

The limits are enforced here, so that a decompression bomb costs nothing. Any bytes at all either give a header or raise
InvalidRequest.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from shoal.errors import InvalidRequest
from shoal.pictures.chunk_headers import PNG, read_png, read_webp
from shoal.pictures.jpeg_header import JPEG, read_jpeg

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from shoal.pictures.header import PictureHeader


_MAX_PASSES: Final = 12
"""Over as many pixels as a picture may have: encoders write up to 10 scans, and each costs a pass over all pixels."""


def read_header(data: Buffer, *, max_pixels: int, max_scans: int) -> PictureHeader:
    """Reads the header of a JPEG, PNG or WebP file.

    Raises:
        InvalidRequest: empty, truncated or damaged, not one of the formats, more than ``max_pixels`` pixels, or a
            progressive JPEG of more than ``max_scans`` scans, or of too many for so large a picture.
    """
    view = memoryview(data).cast("B")
    try:
        header = _reader(view)(view, max_scans)
    except (struct.error, IndexError):
        raise InvalidRequest("the picture is truncated: it ends inside its header") from None
    _check(header, max_pixels, max_scans)
    return header


def _reader(view: memoryview) -> Callable[[memoryview, int], PictureHeader]:
    start = bytes(view[:16])
    if start.startswith(JPEG):
        return read_jpeg
    if start.startswith(PNG):
        return read_png
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return read_webp
    if not start:
        raise InvalidRequest("the picture is empty")
    raise InvalidRequest("not a picture that can be read: expected a JPEG, PNG or WebP file")


def _check(header: PictureHeader, max_pixels: int, max_scans: int) -> None:
    size = f"{header.width} x {header.height}"
    if header.width < 1 or header.height < 1:
        raise InvalidRequest(f"the picture is damaged: its size is {size}")
    if header.width * header.height > max_pixels:
        raise InvalidRequest(f"the picture is too large: {size} pixels; the limit is {max_pixels:,} in all")
    if header.scans > max_scans:
        raise InvalidRequest(
            f"the progressive JPEG has too many scans; the limit is {max_scans}, and a baseline JPEG has one"
        )
    if header.width * header.height * header.scans > max_pixels * _MAX_PASSES:
        raise InvalidRequest(f"the progressive JPEG has too many scans, {header.scans}, for its size of {size} pixels")
