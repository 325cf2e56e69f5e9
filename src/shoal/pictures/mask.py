"""Masks as they travel: a class index a pixel, as a PNG, as COCO's runs, or as it is.

Standard library only: clients have neither numpy nor a picture library, and a PNG without filters needs but zlib.
Sources: PNG third edition; the colours are those of PASCAL VOC's development kit (VOClabelcolormap.m); the runs are
COCO's uncompressed RLE (https://github.com/cocodataset/cocoapi, pycocotools/mask.py).
"""

from __future__ import annotations

import struct
import zlib
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from shoal.errors import Internal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from typing_extensions import Buffer

MAX_PIXELS: Final = 2**25
"""The most pixels of a mask: bounds the memory of worker and client."""

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_HEADER: Final = struct.Struct(">IIBBBBB")
_GREY, _PALETTE = 0, 3
_LEVEL: Final = 3
"""zlib's level. A mask of 12 megapixels took 18 ms and 226 kB, against 83 ms and 192 kB at level 6, on one core."""
_COLOUR_BITS: Final = 8


class ClassMap(NamedTuple):
    """A class index a pixel, rows from the top."""

    width: int
    height: int
    class_bytes: int
    """Bytes of an index, 1 or 2, the low byte first."""
    indices: bytes


def unseen(class_bytes: int) -> int:
    """The index of pixels that the model did not see: the largest, and no class."""
    return (1 << 8 * class_bytes) - 1


@cache
def palette() -> bytes:
    """256 colours, R, G and B of each: class 0 is black, and neighbours differ much."""
    return b"".join(bytes(_colour(index)) for index in range(256))


def _colour(index: int) -> Iterator[int]:
    """The bits of the index, three at a time, become the highest bits of red, green and blue, and so on down."""
    for channel in range(3):
        bits = (index >> (3 * place + channel) & 1 for place in range(_COLOUR_BITS))
        yield sum(bit << (_COLOUR_BITS - 1 - place) for place, bit in enumerate(bits))


def encode_png(size: tuple[int, int], class_bytes: int, indices: Buffer) -> bytes:
    """A class map as a palette PNG of 8 bits, or a grey one of 16; no row is filtered.

    Args:
        size: Width and height.
        class_bytes: 1 or 2.
        indices: As in ``ClassMap``.
    """
    width, height = size
    data = memoryview(indices if class_bytes == 1 else _swapped(indices)).cast("B")
    stride = width * class_bytes
    rows = b"".join(part for row in range(height) for part in (b"\0", data[row * stride : (row + 1) * stride]))
    kind = _PALETTE if class_bytes == 1 else _GREY
    chunks = [_chunk(b"IHDR", _HEADER.pack(width, height, 8 * class_bytes, kind, 0, 0, 0))]
    if kind == _PALETTE:
        chunks.append(_chunk(b"PLTE", palette()))
    chunks += [_chunk(b"IDAT", zlib.compress(rows, _LEVEL)), _chunk(b"IEND", b"")]
    return _SIGNATURE + b"".join(chunks)


def decode_png(png: bytes) -> ClassMap:
    """Reads what ``encode_png`` writes; it is no reader for PNGs from elsewhere.

    Raises:
        Internal: the bytes are something else.
    """
    try:
        return _decode(png)
    except (struct.error, zlib.error):
        raise Internal("the mask is truncated or damaged") from None


def _decode(png: bytes) -> ClassMap:
    if not png.startswith(_SIGNATURE):
        raise Internal("the mask is not a PNG")
    chunks = list(_chunks(png))
    width, height, bits, kind, *rest = _HEADER.unpack(chunks[0][1]) if chunks else (0,) * 7
    if (bits, kind) not in {(8, _PALETTE), (16, _GREY)} or any(rest):
        raise Internal("the mask is a PNG of another kind than Shoal's workers write")
    check_size(width, height)
    stride = width * bits // 8 + 1
    data = b"".join(content for name, content in chunks if name == b"IDAT")
    rows = zlib.decompressobj().decompress(data, stride * height)
    if len(rows) != stride * height or any(rows[::stride]):
        raise Internal("the mask is a PNG that is truncated or has filtered rows")
    indices = b"".join(rows[start + 1 : start + stride] for start in range(0, len(rows), stride))
    return ClassMap(width, height, bits // 8, indices if bits == 8 else bytes(_swapped(indices)))


def from_runs(size: tuple[int, int], class_bytes: int, regions: Iterable[tuple[int, Sequence[int]]]) -> ClassMap:
    """The class map of an index and COCO's counts each; what no region covers is unseen.

    Raises:
        Internal: an index or a count that does not fit.
    """
    width, height = size
    check_size(width, height)
    pixels = width * height
    planes = [bytearray(b"\xff") * pixels for _ in range(class_bytes)]  # a byte of the indices each, down the columns
    for index, counts in regions:
        if sum(counts) > pixels or index >= unseen(class_bytes):
            raise Internal(f"the runs of class {index} don't fit a mask of {width} x {height}")
        end = 0
        for number, count in enumerate(counts):
            start, end = end, end + count
            if number % 2:
                for place, plane in enumerate(planes):
                    plane[start:end] = bytes([index >> 8 * place & 0xFF]) * count
    indices = bytearray(pixels * class_bytes)
    for place, plane in enumerate(planes):
        indices[place::class_bytes] = b"".join(plane[row::height] for row in range(height))
    return ClassMap(width, height, class_bytes, bytes(indices))


def check_size(width: int, height: int) -> None:
    """Raises Internal unless a mask can be so large."""
    if not 0 < width * height <= MAX_PIXELS:
        raise Internal(f"a mask of {width} x {height} pixels; the limit is {MAX_PIXELS:,} in all")


def _swapped(indices: Buffer) -> bytearray:
    """With the two bytes of each index the other way round: PNG has the high one first."""
    data = memoryview(indices).cast("B")
    swapped = bytearray(len(data))
    swapped[::2], swapped[1::2] = data[1::2], data[::2]
    return swapped


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at < len(png):
        length, name = struct.unpack_from(">I4s", png, at)
        yield name, png[at + 8 : at + 8 + length]
        at += 12 + length
