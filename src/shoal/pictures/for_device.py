"""Which JPEGs a GPU's decoder may have: those that it can take, and that are whole as far as that can be told.

It doesn't notice that a file is damaged or truncated, and shows what it made of it. And one picture of a kind that it
can't decode may spoil its whole batch. So what isn't plain stays with libjpeg, which is particular about each.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from shoal.errors import InvalidRequest
from shoal.pictures.jpeg_header import JPEG, read_baseline

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from shoal.pictures.header import PictureHeader

_MOST_PIXELS: Final = 2**25
"""A batch of 64 such pictures takes 3 GiB of the device as YCbCr 4:2:0."""
_END: Final = b"\xff\xd9"
_END_BYTES: Final = 64
"""So near its end a file has its end marker: some writers fill up to a whole word or sector."""


def device_header(data: Buffer, *, max_pixels: int) -> PictureHeader | None:
    """The header of a JPEG for the device; None: decode it here, which also finds what is wrong with it."""
    view = memoryview(data).cast("B")
    if bytes(view[:3]) != JPEG or _END not in bytes(view[-_END_BYTES:]):
        return None
    try:
        header = read_baseline(view)
    except (InvalidRequest, struct.error, IndexError):
        return None
    if header is None or not 0 < header.width * header.height <= min(max_pixels, _MOST_PIXELS):
        return None
    return header
