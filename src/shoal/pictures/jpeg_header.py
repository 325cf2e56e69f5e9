"""A JPEG's header: its segments before the first scan, and how many scans follow.

Sources: ITU-T T.81 annex B, and Exif 2.32 section 4.6 (orientation).
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from shoal.errors import InvalidRequest
from shoal.pictures.header import PictureFormat, PictureHeader
from shoal.pictures.orientation import orientation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer


_MAX_SEGMENTS: Final = 2000
"""A 32 MiB picture made of nothing but full JPEG segments has 512."""
JPEG: Final = b"\xff\xd8\xff"
"""What every file of the format starts with."""
_SOS: Final = 0xDA
_SOF: Final = 0xC0
_DHT: Final = 0xC4
_DQT: Final = 0xDB
_JFIF_BYTES: Final = 14
"""Of JFIF's segment at least; with less libjpeg doesn't take it for one."""
_SAMPLINGS: Final = frozenset({(1, 1), (2, 1), (1, 2), (2, 2)})
"""Of luma, where chroma has one sample for so many across and down."""
_EOI: Final = 0xD9
_APP0: Final = 0xE0
_APP1: Final = 0xE1
_APP14: Final = 0xEE
_ADOBE_TRANSFORM: Final = 11
"""Where Adobe's segment has its colour transform (Adobe Technical Note 5116)."""
_BASELINE: Final = 0xC0
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
_SOI: Final = 0xD8
_SEGMENT_START: Final = 4
"""Bytes of a marker and its length."""
_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_NEXT_MARKER: Final = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)
_ANY_MARKER: Final = re.compile(rb"\xff[^\x00\xff]", re.DOTALL)


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
    names: bytes
    """The components', one byte each."""
    sampling: tuple[tuple[int, int], ...]
    """Of each component, across and down."""


class _Header(NamedTuple):
    """What stands before the first scan."""

    frame: _Frame
    orientation: int
    scan: int
    """Where the first scan's header begins."""
    is_jfif: bool
    adobe: int
    """The colour transform that Adobe's segment tells; -1: there is none."""
    is_plain: bool
    """Whether it has all tables, and no second frame."""


def read_jpeg(view: memoryview, max_scans: int) -> PictureHeader:
    """The header of a JPEG; its scans are counted up to ``max_scans`` + 1.

    Raises:
        InvalidRequest: it is damaged, or of a kind that can't be read.
        struct.error, IndexError: it is truncated.
    """
    header = _read(view)
    frame, scan = header.frame, header.scan
    scans = _count_scans(view, scan, max_scans) if _has_many_scans(view, frame, scan) else 1
    return _told(header, scans)


def read_baseline(view: memoryview) -> PictureHeader | None:
    """The header of a JPEG that any decoder can read: baseline, one scan, grey or YCbCr; None: it is something else.

    Raises:
        InvalidRequest, struct.error, IndexError: as ``read_jpeg``.
    """
    header = _read(view)
    frame = header.frame
    if frame.marker != _BASELINE or frame.channels not in {1, 3} or frame.doubt or not header.is_plain:
        return None
    if frame.channels == 3 and (frame.sampling[0] not in _SAMPLINGS or set(frame.sampling[1:]) != {(1, 1)}):
        return None
    scanned = bytes(view[header.scan + 1 : header.scan + 1 + 2 * frame.channels : 2])
    if scanned != frame.names:
        return None
    if _has_many_scans(view, frame, header.scan) or (frame.channels == 3 and _is_rgb(header)):
        return None
    return _told(header, 1)


def _told(header: _Header, scans: int) -> PictureHeader:
    frame = header.frame
    return PictureHeader(
        PictureFormat.JPEG,
        frame.width,
        frame.height,
        header.orientation,
        frame.channels,
        scans,
        frame.marker,
        frame.doubt,
    )


def _is_rgb(header: _Header) -> bool:
    """Libjpeg's rule for three components (jdapimin.c, default_decompress_parms)."""
    if header.is_jfif:
        return False
    return header.adobe == 0 or (header.adobe < 0 and header.frame.names == b"RGB")


def _read(view: memoryview) -> _Header:
    """Raises as ``read_jpeg``."""
    frame: _Frame | None = None
    exif: list[bytes] = []
    xmp = b""
    is_jfif, adobe = False, -1
    seen: Counter[int] = Counter()
    for marker, start, end in _segments(view):
        seen[_SOF if marker in _FRAMES else marker] += 1
        if marker in _FRAMES:
            frame = _read_frame(view, marker, start)
        elif marker == _APP1 and bytes(view[start : start + 6]) == b"Exif\0\0":
            # One file in several segments, each with the preamble: Exif 2.32 knows one only, writers do not.
            exif.append(bytes(view[start + 6 : end]))
        elif marker == _APP1 and bytes(view[start : start + len(_XMP)]) == _XMP:
            xmp = bytes(view[start + len(_XMP) : end])
        elif marker == _APP0 and bytes(view[start : start + 5]) == b"JFIF\0" and end - start >= _JFIF_BYTES:
            is_jfif = True
        elif marker == _APP14 and bytes(view[start : start + 5]) == b"Adobe" and end - start > _ADOBE_TRANSFORM:
            adobe = view[start + _ADOBE_TRANSFORM]
        elif marker == _SOS:
            if frame is None:
                raise InvalidRequest("the JPEG is damaged: it has no frame header")
            is_plain = seen[_SOF] == 1 and min(seen[_DHT], seen[_DQT]) > 0
            return _Header(frame, orientation(b"".join(exif), xmp), start, is_jfif, adobe, is_plain)
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
    names = bytes(view[start + 6 : start + 6 + 3 * channels : 3])
    return _Frame(marker, width, height, channels, _doubt(marker, tuple(sampling)), names, tuple(sampling))


@lru_cache(256)  # a few are in use
def _doubt(marker: int, sampling: tuple[tuple[int, int], ...]) -> str:
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
