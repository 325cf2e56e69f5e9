"""The headers of formats that are made of chunks: PNG and WebP.

Sources: PNG third edition section 11, RFC 9649 (WebP), and Exif 2.32 section 4.6 (orientation).
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

from shoal.errors import InvalidRequest
from shoal.pictures.header import PictureFormat, PictureHeader
from shoal.pictures.orientation import orientation

if TYPE_CHECKING:
    from collections.abc import Iterator


_MAX_WEBP_CHUNKS: Final = 2000
_MAX_CHUNKS: Final = 20_000
"""The most chunks of a PNG: encoders write IDAT chunks of 8 KiB and more."""
_MAX_TEXT: Final = 2**20
"""Bytes that a PNG's compressed text may have, as in Pillow."""
PNG: Final = b"\x89PNG\r\n\x1a\n"
_TEXT_AT: Final = {b"tEXt": 0, b"zTXt": 1, b"iTXt": 2}
"""PNG's chunks of text; bytes between the keyword's end and what follows."""
_EXIF: Final = b"exif\0"
_KEYWORDS: Final = (_EXIF, b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
_LONGEST_KEYWORD: Final = 80


def read_png(view: memoryview, _max_scans: int) -> PictureHeader:
    """The header of a PNG. Raises struct.error or IndexError if it is truncated, InvalidRequest if damaged."""
    length, kind, width, height, _, colour = struct.unpack_from(">I4sIIBB", view, len(PNG))
    if (length, kind) != (13, b"IHDR"):
        raise InvalidRequest("the PNG is damaged: it has no header")
    channels = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}.get(colour, 3)
    return PictureHeader(PictureFormat.PNG, width, height, _png_orientation(view), channels)


def _png_orientation(view: memoryview) -> int:
    """From its ``eXIf`` or, in files from before that, from ImageMagick's and Exiv2's text; the last one counts."""
    found: dict[bytes, bytes] = {}
    for name, start, end in _chunks(view, len(PNG), ">I4s", trailer=4, most=_MAX_CHUNKS):
        if name == b"eXIf":
            found[_EXIF] = b"tEXt" + _EXIF + bytes(view[start:end])
        elif name in _TEXT_AT:
            keyword = bytes(view[start : start + _LONGEST_KEYWORD]).partition(b"\0")[0] + b"\0"
            if keyword in _KEYWORDS and (keyword != _EXIF or name == b"tEXt"):
                found[keyword] = name + bytes(view[start:end])
        elif name == b"IEND":
            break
    exif, profile, xmp = (_png_text(found.get(keyword, b"")) for keyword in _KEYWORDS)
    return orientation(exif or _raw_profile(profile), xmp)


def _png_text(chunk: bytes) -> bytes:
    """The text of a chunk that begins with its name; PNG third edition, section 11.3.3. Empty where it has none."""
    name, text = chunk[:4], chunk[4:].partition(b"\0")[2]
    if name not in _TEXT_AT:
        return b""
    flags, text = text[: _TEXT_AT[name]], text[_TEXT_AT[name] :]
    if name == b"iTXt":
        text = text.split(b"\0", 2)[-1]  # behind the language and the translated keyword
    if name == b"tEXt" or (name == b"iTXt" and flags[:1] == b"\0"):  # not compressed
        return text
    if flags[-1:] != b"\0":  # deflate is the only method there is
        return b""
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(text, _MAX_TEXT)
    except zlib.error:
        return b""
    return b"" if inflater.unconsumed_tail else text


def _raw_profile(text: bytes) -> bytes:
    """ImageMagick's: an empty line, the name, the length, then hexadecimal digits in lines."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""


def read_webp(view: memoryview, _max_scans: int) -> PictureHeader:
    """The header of a WebP. Raises struct.error or IndexError if it is truncated, InvalidRequest if damaged."""
    name = bytes(view[12:16])
    if name == b"VP8 ":
        width, height = struct.unpack_from("<HH", view, 26)
        return PictureHeader(PictureFormat.WEBP, width & 0x3FFF, height & 0x3FFF)
    if name == b"VP8L":
        (bits,) = struct.unpack_from("<I", view, 21)
        channels = 4 if bits >> 28 & 1 else 3
        return PictureHeader(PictureFormat.WEBP, (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, 1, channels)
    if name != b"VP8X":
        raise InvalidRequest("the WebP is damaged: it has no header")
    return _read_extended_webp(view)


def _read_extended_webp(view: memoryview) -> PictureHeader:
    flags, low, high = struct.unpack_from("<B3xIH", view, 20)
    width, height = (low & 0xFFFFFF) + 1, (low >> 24 | high << 8) + 1
    exif = _first_chunk(view, b"EXIF") if flags & 0x08 else b""
    xmp = _first_chunk(view, b"XMP ") if flags & 0x04 else b""
    return PictureHeader(PictureFormat.WEBP, width, height, orientation(exif, xmp), 4 if flags & 0x10 else 3)


def _first_chunk(view: memoryview, wanted: bytes) -> bytes:
    return next((bytes(view[start:end]) for name, start, end in _chunks(view, 12, "<4sI") if name == wanted), b"")


def _chunks(
    view: memoryview, position: int, form: str, trailer: int = 0, most: int = _MAX_WEBP_CHUNKS
) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk of a PNG (length first, CRC last) or RIFF file (name first, even length)."""
    name_first = form.endswith("I")
    for _ in range(most):
        if position + 8 > len(view):
            return
        first, second = struct.unpack_from(form, view, position)
        name, length = (first, second) if name_first else (second, first)
        yield name, position + 8, position + 8 + length
        position += 8 + length + trailer + (length & 1 if name_first else 0)
