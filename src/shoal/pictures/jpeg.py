"""From a JPEG's bytes to its pixels: what Pillow shows, as fast as libjpeg-turbo can.

TurboJPEG, through simplejpeg, decodes nearly all files straight into an array. It has no names for some sampling
factors, converts CMYK in its own way, writes past its memory when a lossless file is to become smaller, and can't tell
which of libjpeg's warnings came: in such cases the same libjpeg-turbo is asked through Pillow, which has an opinion on
each and prints nothing.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Final

import simplejpeg
from PIL.JpegImagePlugin import JpegImageFile

from shoal.errors import InvalidRequest
from shoal.pictures.jpeg_header import without_metadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from typing_extensions import Buffer

    from shoal.pictures.header import PictureHeader
    from shoal.service.spec import JpegStrictness

_CMYK: Final = 4
_END: Final = b"\xff\xd9"
_BETWEEN_SCANS: Final = (b"\xff\xc4", b"\xff\xda")
_TURBOJPEG_LACKS: Final = ("subsampling level", "Unsupported color conversion")
"""In its errors about what is no fault of the file."""
_PILLOW_RAISES: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    AssertionError,
    struct.error,
)
"""On files that are none."""


def read_jpeg(
    data: Buffer, header: PictureHeader, scale: int, strictness: JpegStrictness
) -> NDArray[np.uint8] | Image.Image:
    """The stored picture, reduced by ``scale``: 1, 2, 4 or 8; a side becomes the next larger whole number.

    Returns:
        RGB: an array ``(h, w, 4)``, the last channel of no meaning, or Pillow's image of mode RGB.

    Raises:
        InvalidRequest: it can't be decoded, or not as strictly as that.
    """
    fault = ""
    scale = scale if header.has_dct else 1
    if header.channels != _CMYK and header.has_dct:
        # simplejpeg takes the smallest scale that keeps these; with 1 / scale exactly, that is the one we chose.
        least = {"min_width": -(-header.width // scale), "min_height": -(-header.height // scale)} if scale > 1 else {}
        try:
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGBX", **least)
        except (ValueError, OverflowError) as error:
            fault = str(error)
        else:
            return pixels
    if strictness == "strict" and fault and not any(lack in fault for lack in _TURBOJPEG_LACKS):
        raise InvalidRequest(f"the JPEG is truncated or damaged: {fault}; the pool's jpeg_strictness is strict")
    return _through_pillow(data, header, scale, strictness, fault)


def _through_pillow(
    data: Buffer, header: PictureHeader, scale: int, strictness: JpegStrictness, fault: str
) -> Image.Image:
    plain = without_metadata(data)
    ends = _made_whole(plain) if strictness == "lenient" else iter([plain])
    reason = ""
    for whole in ends:
        try:
            image = JpegImageFile(io.BytesIO(whole))
            if scale > 1:
                image.draft(None, (header.width // scale, header.height // scale))
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
        except _PILLOW_RAISES as error:
            reason = str(error)
    raise InvalidRequest(_reason(header, reason, fault))


def _made_whole(data: bytes) -> Iterator[bytes]:
    """With an end, for which libjpeg shows what came before; then without the segment that the cut may be in.

    (TurboJPEG would do as much, but after an error in the middle it hands out memory that it never wrote to.)
    """
    yield data + _END
    yield data[: max(data.rfind(marker) for marker in _BETWEEN_SCANS)] + _END


def _reason(header: PictureHeader, pillow: str, turbojpeg: str) -> str:
    if header.doubt:
        return f"the JPEG can't be decoded: {header.doubt}"
    if "truncated" in pillow.lower():
        return "the JPEG is truncated: it ends before its picture does"
    named = any(lack in turbojpeg for lack in _TURBOJPEG_LACKS)
    return f"the JPEG is damaged: {pillow if named or not turbojpeg else turbojpeg}"
