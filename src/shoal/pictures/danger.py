"""Which pictures may be decoded in the worker's own process, and which need one of their own.

Huffman-coded JPEGs through libjpeg-turbo have earned it by fuzzing, as long as their size bounds what they cost. What
may cost more, is coded in a way that hardly anybody uses, or is read by anything else goes to a process with limits.
docs/safe-decoding.md has the figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoal.pictures.header import PictureFormat
from shoal.pictures.jpeg_header import JPEG

if TYPE_CHECKING:
    from shoal.pictures.header import PictureHeader

_HUFFMAN: Final = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended sequential and progressive; not lossless, hierarchical or arithmetic coding."""
_MOST_SECONDS: Final = 0.35
"""CPU time that decoding may take: 29 megapixels in one pass, or 4.8 in ten."""
_MOST_COEFFICIENT_BYTES: Final = 64 * 2**20
"""A picture of several scans is kept as coefficients of 2 bytes until the last one."""

# Upper bounds, measured on noise, for which entropy decoding is dearest.
_PIXEL_SECONDS: Final = 12e-9
_SCAN_PIXEL_SECONDS: Final = 6e-9
"""And this for each of several scans."""
_BYTE_SECONDS: Final = 10e-9


def may_be_quick(start: bytes) -> bool:
    """What can be told from a file's first bytes: False, if ``is_quick`` will be."""
    return start.startswith(JPEG)


def is_quick(header: PictureHeader, file_bytes: int) -> bool:
    """Whether a picture is decoded in a fraction of a second, in little memory, by code that takes any bytes."""
    if header.format is not PictureFormat.JPEG or header.coding not in _HUFFMAN:
        return False
    pixels = header.width * header.height
    again = header.scans if header.scans > 1 else 0
    seconds = pixels * (_PIXEL_SECONDS + again * _SCAN_PIXEL_SECONDS) + file_bytes * _BYTE_SECONDS
    kept = 2 * header.channels * pixels if again else 0
    return seconds <= _MOST_SECONDS and kept <= _MOST_COEFFICIENT_BYTES


def least_bytes(header: PictureHeader) -> int:
    """Memory that decoding a picture takes at the least: what has more than that to spare may try."""
    pixels = header.width * header.height
    if header.format is PictureFormat.WEBP:
        return 16 * pixels  # two canvases and two copies of the first frame, of 4 bytes each
    if header.format is PictureFormat.PNG:
        return 4 * pixels  # one byte as stored, three as RGB
    return 2 * header.channels * pixels // 2 if header.scans > 1 else 0  # coefficients, chroma at a quarter of the size
