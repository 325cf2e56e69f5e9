"""A picture's header: what it says of itself, read in microseconds before anything is decoded.

The limits are enforced here, so that a decompression bomb costs nothing. Any bytes at all either give a header or raise
InvalidRequest. Sources: ITU-T T.81 annex B (JPEG), PNG third edition section 11, RFC 9649 (WebP), and Exif 2.32
section 4.6 (orientation).
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from shoal.errors import InvalidRequest
from shoal.pictures.orientation import orientation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Buffer

_MAX_SEGMENTS: Final = 2000
"""A 32 MiB picture made of nothing but full JPEG segments has 512."""
_MAX_CHUNKS: Final = 20_000
"""The most chunks of a PNG: encoders write IDAT chunks of 8 KiB and more."""
_MAX_TEXT: Final = 2**20
"""Bytes that a PNG's compressed text may have, as in Pillow."""
_MAX_PASSES: Final = 12
"""Over as many pixels as a picture may have: encoders write up to 10 scans, and each costs a pass over all pixels."""
_TRANSPOSED: Final = 5
"""From this EXIF orientation on, rows are columns."""

JPEG: Final = b"\xff\xd8\xff"
"""What every file of the format starts with."""
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_SOS: Final = 0xDA
_EOI: Final = 0xD9
_APP1: Final = 0xE1
_TEXT_AT: Final = {b"tEXt": 0, b"zTXt": 1, b"iTXt": 2}
"""PNG's chunks of text; bytes between the keyword's end and what follows."""
_EXIF: Final = b"exif\0"
_KEYWORDS: Final = (_EXIF, b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")
_LONGEST_KEYWORD: Final = 80
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
_METADATA: Final = frozenset(range(0xE0, 0xF0)) - {0xE0, 0xEE} | {0xFE}
"""Segments that don't change a JPEG's pixels: all of applications but JFIF's and Adobe's, and comments."""
_BITS: Final = 8
_HIERARCHICAL: Final = frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF})
_ARITHMETIC_LOSSLESS: Final = 0xCB
_MAX_BLOCKS: Final = 10
"""T.81 B.2.3: in the smallest unit of a scan of several components."""
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITH_DCT: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_SOI: Final = 0xD8
_SEGMENT_START: Final = 4
"""Bytes of a marker and its length."""
_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_NEXT_MARKER: Final = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_ANY_MARKER: Final = re.compile(rb"\xff[^\x00\xff]", re.DOTALL)


class PictureFormat(StrEnum):
    """The formats that Shoal reads."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WebP"


class PictureSize(NamedTuple):
    """In pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What a picture says of itself."""

    format: PictureFormat
    width: int
    """Pixels as stored, before the orientation is applied."""
    height: int
    orientation: int = 1
    """EXIF's, 1 to 8; 1 is upright."""
    channels: int = 3
    """Number stored: 1 grey, 3 colour, 4 CMYK (JPEG) or colour and alpha."""
    scans: int = 1
    """Passes over the picture; above 1 in progressive JPEGs only. Data after the picture may be counted in."""
    coding: int = 0
    """A JPEG's frame marker, 0xC0 to 0xCF: how it is coded (ITU-T T.81, table B.1)."""
    doubt: str = ""
    """Why a JPEG of this kind may not be decodable, should it turn out so."""

    @property
    def has_dct(self) -> bool:
        """Whether it is a JPEG that can be decoded at a smaller size; a lossless one can't."""
        return self.coding in _WITH_DCT

    @property
    def transposed(self) -> bool:
        """Whether the upright picture's width is the stored one's height."""
        return self.orientation >= _TRANSPOSED

    @property
    def upright(self) -> PictureSize:
        """The size of the picture as people see it."""
        return PictureSize(self.height, self.width) if self.transposed else PictureSize(self.width, self.height)


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
        return _read_jpeg
    if start.startswith(_PNG):
        return _read_png
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return _read_webp
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


def without_metadata(data: Buffer) -> bytes:
    """A JPEG without the segments that don't change its pixels and the junk between them: less to walk for others."""
    view = memoryview(data).cast("B")
    kept = [view[:2]]
    for marker, start, end in _segments(view):
        if marker == _SOS:
            return b"".join([*kept, view[start - _SEGMENT_START :]])
        if marker not in _METADATA:
            kept.append(view[start - _SEGMENT_START : max(start, end)])
    raise InvalidRequest("the JPEG is damaged: too many segments before its first scan")


class _Frame(NamedTuple):
    marker: int
    width: int
    height: int
    channels: int
    doubt: str


def _read_jpeg(view: memoryview, max_scans: int) -> PictureHeader:
    frame: _Frame | None = None
    exif: list[bytes] = []
    xmp = b""
    for marker, start, end in _segments(view):
        if marker in _FRAMES:
            frame = _read_frame(view, marker, start)
        elif marker == _APP1 and bytes(view[start : start + 6]) == b"Exif\0\0":
            # One file in several segments, each with the preamble: Exif 2.32 knows one only, writers do not.
            exif.append(bytes(view[start + 6 : end]))
        elif marker == _APP1 and bytes(view[start : start + len(_XMP)]) == _XMP:
            xmp = bytes(view[start + len(_XMP) : end])
        elif marker == _SOS:
            if frame is None:
                raise InvalidRequest("the JPEG is damaged: it has no frame header")
            scans = _count_scans(view, start, max_scans) if _has_many_scans(view, frame, start) else 1
            turned = orientation(b"".join(exif), xmp)
            return PictureHeader(
                PictureFormat.JPEG, frame.width, frame.height, turned, frame.channels, scans, frame.marker, frame.doubt
            )
    raise InvalidRequest("the JPEG is damaged: too many segments before its first scan")


def _segments(view: memoryview) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of the payload of each segment before the entropy-coded data, junk between them skipped."""
    position = 2
    for _ in range(_MAX_SEGMENTS):
        found = _ANY_MARKER.search(view, position)
        if found is None:
            raise InvalidRequest("the JPEG is truncated: it ends inside its header")
        position = found.end()
        marker = view[position - 1]
        if marker == _EOI:
            raise InvalidRequest("the JPEG is damaged: it ends before its first scan")
        if marker == _SOI:
            raise InvalidRequest("the JPEG is damaged: it begins twice")
        if marker not in _STANDALONE:
            (length,) = struct.unpack_from(">H", view, position)
            yield marker, position + 2, position + length
            position += max(length, 2)


def _read_frame(view: memoryview, marker: int, start: int) -> _Frame:
    bits, height, width, channels = struct.unpack_from(">BHHB", view, start)
    if bits != _BITS:
        raise InvalidRequest(f"a JPEG of {bits} bits a sample can't be read; save it with 8")
    if height == 0 < width:
        raise InvalidRequest("a JPEG that tells its height after its first scan (DNL) can't be read")
    sampling = [divmod(view[start + 7 + 3 * channel], 16) for channel in range(channels)]
    return _Frame(marker, width, height, channels, _doubt(marker, sampling))


def _doubt(marker: int, sampling: Sequence[tuple[int, int]]) -> str:
    """What libjpeg can't do: T.81 has more than anybody's decoder."""
    if marker in _HIERARCHICAL:
        return "it is hierarchical"
    if marker == _ARITHMETIC_LOSSLESS:
        return "it is lossless with arithmetic coding"
    if len(sampling) not in {1, 3, 4}:
        return f"it has {len(sampling)} components; expected 1, 3 or 4"
    if len(sampling) > 1 and sum(across * down for across, down in sampling) > _MAX_BLOCKS:
        return "its sampling factors make units of more than 10 blocks"
    if any(most % max(1, one) for own in zip(*sampling, strict=True) for most in [max(own)] for one in own):
        return "its sampling factors aren't multiples of each other"
    return ""


def _has_many_scans(view: memoryview, frame: _Frame, scan: int) -> bool:
    """The rule of libjpeg: a sequential picture whose first scan holds all components has no second one."""
    return frame.marker in _PROGRESSIVE or view[scan] < frame.channels


def _count_scans(view: memoryview, first: int, max_scans: int) -> int:
    """At most ``max_scans`` + 1. Searches fast, which can only count too many, then walks if that is over the limit."""
    data = bytes(view[first:])
    quick = 1 + data.count(b"\xff\xda")
    return quick if quick <= max_scans else _walk_scans(data, max_scans)


def _walk_scans(data: bytes, max_scans: int) -> int:
    """Counts up to the end of the picture: a motion photo has megabytes of video behind it."""
    scans, position = 1, 0
    for _ in range(_MAX_SEGMENTS):
        found = _NEXT_MARKER.search(data, position)
        if found is None or found[1][0] == _EOI or scans > max_scans:
            break
        scans += found[1][0] == _SOS
        position = found.end() + max(int.from_bytes(data[found.end() : found.end() + 2]), 2)
    return scans


def _read_png(view: memoryview, _max_scans: int) -> PictureHeader:
    length, kind, width, height, _, colour = struct.unpack_from(">I4sIIBB", view, len(_PNG))
    if (length, kind) != (13, b"IHDR"):
        raise InvalidRequest("the PNG is damaged: it has no header")
    channels = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}.get(colour, 3)
    return PictureHeader(PictureFormat.PNG, width, height, _png_orientation(view), channels)


def _png_orientation(view: memoryview) -> int:
    """From its ``eXIf`` or, in files from before that, from ImageMagick's and Exiv2's text; the last one counts."""
    found: dict[bytes, bytes] = {}
    for name, start, end in _chunks(view, len(_PNG), ">I4s", trailer=4, most=_MAX_CHUNKS):
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


def _read_webp(view: memoryview, _max_scans: int) -> PictureHeader:
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
    view: memoryview, position: int, form: str, trailer: int = 0, most: int = _MAX_SEGMENTS
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
