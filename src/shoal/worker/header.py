"""A picture's header: what it says of itself, read in microseconds before anything is decoded.

The limits are enforced here, so that a decompression bomb costs nothing. Any bytes at all either give a header or raise
InvalidRequest. Sources: ITU-T T.81 annex B (JPEG), PNG third edition section 11, RFC 9649 (WebP), and Exif 2.32
section 4.6 (orientation).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from shoal.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

_MAX_SEGMENTS: Final = 2000
"""A 32 MiB picture made of nothing but full JPEG segments has 512."""
_MAX_EXIF_ENTRIES: Final = 512
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
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_NEXT_MARKER: Final = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)


class ImageFormat(StrEnum):
    """The formats that Shoal reads."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WebP"


class ImageSize(NamedTuple):
    """In pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What a picture says of itself."""

    format: ImageFormat
    width: int
    """As stored: before the orientation is applied."""
    height: int
    orientation: int = 1
    """EXIF's, 1 to 8; 1 is upright."""
    channels: int = 3
    """As stored: 1 grey, 3 colour, 4 CMYK (JPEG) or colour and alpha."""
    scans: int = 1
    """Passes over the picture; above 1 in progressive JPEGs only. Data after the picture may be counted in."""
    coding: int = 0
    """A JPEG's frame marker, 0xC0 to 0xCF: how it is coded (ITU-T T.81, table B.1)."""

    @property
    def transposed(self) -> bool:
        """Whether the upright picture's width is the stored one's height."""
        return self.orientation >= _TRANSPOSED

    @property
    def upright(self) -> ImageSize:
        """The size of the picture as people see it."""
        return ImageSize(self.height, self.width) if self.transposed else ImageSize(self.width, self.height)


def read_header(data: Buffer, *, max_pixels: int, max_scans: int) -> ImageHeader:
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


def _reader(view: memoryview) -> Callable[[memoryview, int], ImageHeader]:
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


def _check(header: ImageHeader, max_pixels: int, max_scans: int) -> None:
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


class _Frame(NamedTuple):
    marker: int
    width: int
    height: int
    channels: int


def _read_jpeg(view: memoryview, max_scans: int) -> ImageHeader:
    frame: _Frame | None = None
    orientation = 1
    for marker, start, end in _segments(view):
        if marker in _FRAMES:
            frame = _read_frame(view, marker, start)
        elif marker == _APP1 and bytes(view[start : start + 6]) == b"Exif\0\0":
            orientation = _exif_orientation(view[start + 6 : end])
        elif marker == _SOS:
            if frame is None:
                raise InvalidRequest("the JPEG is damaged: it has no frame header")
            scans = _count_scans(view, start, max_scans) if _has_many_scans(view, frame, start) else 1
            return ImageHeader(
                ImageFormat.JPEG, frame.width, frame.height, orientation, frame.channels, scans, frame.marker
            )
    raise InvalidRequest("the JPEG is damaged: too many segments before its first scan")


def _segments(view: memoryview) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of the payload of each segment before the entropy-coded data."""
    position = 2
    for _ in range(_MAX_SEGMENTS):
        if view[position] != 0xFF:  # noqa: PLR2004 - what every marker starts with
            raise InvalidRequest("the JPEG is damaged: a marker is missing")
        marker = view[position + 1]
        if marker == _EOI:
            raise InvalidRequest("the JPEG is damaged: it ends before its first scan")
        if marker == 0xFF:  # noqa: PLR2004 - a fill byte
            position += 1
        elif marker in _STANDALONE:
            position += 2
        else:
            (length,) = struct.unpack_from(">H", view, position + 2)
            yield marker, position + 4, position + 2 + length
            position += 2 + max(length, 2)


def _read_frame(view: memoryview, marker: int, start: int) -> _Frame:
    _, height, width, channels = struct.unpack_from(">BHHB", view, start)
    return _Frame(marker, width, height, channels)


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


def _read_png(view: memoryview, _max_scans: int) -> ImageHeader:
    length, kind, width, height, _, colour = struct.unpack_from(">I4sIIBB", view, len(_PNG))
    if (length, kind) != (13, b"IHDR"):
        raise InvalidRequest("the PNG is damaged: it has no header")
    orientation = 1
    for name, start, end in _chunks(view, len(_PNG), ">I4s", trailer=4):
        if name == b"eXIf":
            orientation = _exif_orientation(view[start:end])
        if name in (b"eXIf", b"IDAT"):
            break
    channels = {0: 1, 2: 3, 3: 3, 4: 4, 6: 4}.get(colour, 3)
    return ImageHeader(ImageFormat.PNG, width, height, orientation, channels)


def _read_webp(view: memoryview, _max_scans: int) -> ImageHeader:
    name = bytes(view[12:16])
    if name == b"VP8 ":
        width, height = struct.unpack_from("<HH", view, 26)
        return ImageHeader(ImageFormat.WEBP, width & 0x3FFF, height & 0x3FFF)
    if name == b"VP8L":
        (bits,) = struct.unpack_from("<I", view, 21)
        channels = 4 if bits >> 28 & 1 else 3
        return ImageHeader(ImageFormat.WEBP, (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, 1, channels)
    if name != b"VP8X":
        raise InvalidRequest("the WebP is damaged: it has no header")
    return _read_extended_webp(view)


def _read_extended_webp(view: memoryview) -> ImageHeader:
    flags, low, high = struct.unpack_from("<B3xIH", view, 20)
    width, height = (low & 0xFFFFFF) + 1, (low >> 24 | high << 8) + 1
    orientation = 1
    if flags & 0x08:
        exif = next((view[s:e] for name, s, e in _chunks(view, 12, "<4sI") if name == b"EXIF"), view[:0])
        # Some writers put JPEG's preamble here as well.
        orientation = _exif_orientation(exif[6:] if bytes(exif[:6]) == b"Exif\0\0" else exif)
    return ImageHeader(ImageFormat.WEBP, width, height, orientation, 4 if flags & 0x10 else 3)


def _chunks(view: memoryview, position: int, form: str, trailer: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk of a PNG (length first, CRC last) or RIFF file (name first, even length)."""
    name_first = form.endswith("I")
    for _ in range(_MAX_SEGMENTS):
        if position + 8 > len(view):
            return
        first, second = struct.unpack_from(form, view, position)
        name, length = (first, second) if name_first else (second, first)
        yield name, position + 8, position + 8 + length
        position += 8 + length + trailer + (length & 1 if name_first else 0)


def _exif_orientation(tiff: memoryview) -> int:
    """The orientation in a TIFF header's first directory; 1 where there is none or it makes no sense."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(tiff[:2]))
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(min(entries, _MAX_EXIF_ENTRIES)):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, directory + 2 + 12 * entry)
            if (tag, kind) == (0x0112, 3):
                return value if 1 <= value <= 8 else 1  # noqa: PLR2004 - the orientations there are
    except struct.error:
        pass
    return 1
