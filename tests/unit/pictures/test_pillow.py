from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hostile_pictures import png, png_chunks, raw_png
from PIL import Image

from shoal.errors import InvalidRequest
from shoal.pictures import pillow
from shoal.pictures.danger import is_quick, least_bytes, may_be_quick
from shoal.pictures.header import PictureFormat, PictureHeader
from shoal.pictures.read_header import read_header
from support.pictures import encode, many_scans, quadrants


def read(data: bytes) -> np.ndarray:
    return pillow.read(data, read_header(data, max_pixels=10**8, max_scans=64))


def shown(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def noise(mode: str, width: int = 67, height: int = 45) -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 256, (height, width, 4), np.uint8)
    picture = Image.fromarray(pixels)
    return picture.convert("RGB").convert(mode) if mode == "P" else picture.convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
def test_a_png_is_what_pillow_shows(mode: str) -> None:
    data = encode(noise(mode), "PNG")
    np.testing.assert_array_equal(read(data), shown(data))


@pytest.mark.parametrize("options", [{"quality": 60}, {"lossless": True}, {"lossless": True, "exact": True}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_webp_is_what_pillow_shows(mode: str, options: dict[str, Any]) -> None:
    data = encode(noise(mode), "WEBP", **options)
    np.testing.assert_array_equal(read(data), shown(data))


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize("kind", [(16, 6, 4), (16, 2, 3), (8, 6, 4), (8, 4, 2), (4, 0, 1), (2, 3, 1), (1, 3, 1)])
def test_every_kind_of_png_is_what_pillow_shows(kind: tuple[int, int, int], interlaced: int) -> None:
    data = raw_png(33, 70, kind, interlaced, np.random.default_rng(1))
    np.testing.assert_array_equal(read(data), shown(data))


def test_of_16_bits_of_grey_the_high_ones_are_seen() -> None:
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    np.testing.assert_array_equal(read(file.getvalue()), np.repeat((values >> 8)[..., None], 3, -1))


def test_a_picture_in_many_strips_is_whole() -> None:
    data = encode(noise("RGB", 1500, 1100), "PNG")
    np.testing.assert_array_equal(read(data), shown(data))


@pytest.mark.parametrize("name", [b"iCCP", b"zTXt", b"tEXt", b"acTL", b"fcTL", b"tRNS", b"xxXx"])
def test_what_is_no_part_of_the_pixels_is_not_read(name: bytes) -> None:
    data = encode(noise("RGB"), "PNG")
    chunks = png_chunks(data)
    chunks.insert(1, (name, b"p\0\0" + bytes(300)))
    np.testing.assert_array_equal(read(png(chunks)), shown(data))


@pytest.mark.parametrize("length", [2**32 - 1, 2**31, 10**6])
def test_no_chunk_is_believed_to_be_longer_than_the_file(length: int) -> None:
    chunks = png_chunks(encode(quadrants(), "PNG"))
    data = bytearray(png([chunks[0], (b"tEXt", b"k\0v"), *chunks[1:]]))
    data[33:37] = struct.pack(">I", length)
    with pytest.raises(InvalidRequest, match="0 bytes are too few"):
        read(bytes(data))


def test_a_size_that_the_pixels_cannot_fill_is_refused() -> None:
    chunks = png_chunks(encode(quadrants(), "PNG"))
    chunks[0] = b"IHDR", struct.pack(">II", 9000, 9000) + chunks[0][1][8:]
    with pytest.raises(InvalidRequest, match="too few for 9000 x 9000"):
        read(png(chunks))


def test_a_size_that_differs_within_the_file_is_refused() -> None:
    data = encode(quadrants(), "WEBP")
    with pytest.raises(InvalidRequest, match="two sizes"):
        pillow.read(data, PictureHeader(PictureFormat.WEBP, 10, 10))


def header(data: bytes) -> PictureHeader:
    return read_header(data, max_pixels=10**9, max_scans=64)


def test_quick_are_jpegs_of_bounded_cost() -> None:
    jpeg, progressive = encode(quadrants()), encode(quadrants(), progressive=True)
    assert is_quick(header(jpeg), len(jpeg))
    assert is_quick(header(progressive), len(progressive))
    assert may_be_quick(jpeg[:8])
    for form in ("PNG", "WEBP"):
        data = encode(quadrants(), form)
        assert not may_be_quick(data[:8])
        assert not is_quick(header(data), len(data))


@pytest.mark.parametrize(
    ("size", "scans", "file_bytes", "quick"),
    [
        ((4000, 3000), 1, 8 * 2**20, True),
        ((64, 64), 1, 33 * 2**20, True),
        ((10_000, 10_000), 1, 3_000_000, False),
        ((1600, 1200), 10, 2**20, True),
        ((4000, 3000), 10, 7 * 2**20, False),
        ((1600, 1200), 64, 2**20, False),
        ((64, 64), 1, 2**28, False),
    ],
)
def test_the_cost_is_bounded_by_pixels_scans_and_bytes(
    size: tuple[int, int], scans: int, file_bytes: int, quick: bool
) -> None:
    assert is_quick(PictureHeader(PictureFormat.JPEG, *size, scans=scans, coding=0xC2), file_bytes) == quick


@pytest.mark.parametrize("coding", [0xC3, 0xC9, 0xCA, 0xCB, 0])
def test_rare_codings_are_not_quick(coding: int) -> None:
    assert not is_quick(PictureHeader(PictureFormat.JPEG, 8, 8, coding=coding), 100)


def test_the_coding_is_read_from_the_file() -> None:
    assert header(encode(quadrants())).coding == 0xC0
    assert header(many_scans(encode(quadrants(), progressive=True), 3)).coding == 0xC2


def test_memory_is_estimated_from_below() -> None:
    """For whatever fits, decoding must be tried."""
    assert least_bytes(PictureHeader(PictureFormat.WEBP, 1000, 1000)) == 16_000_000
    assert least_bytes(PictureHeader(PictureFormat.PNG, 1000, 1000)) == 4_000_000
    assert least_bytes(PictureHeader(PictureFormat.JPEG, 1000, 1000)) == 0
    assert least_bytes(PictureHeader(PictureFormat.JPEG, 1000, 1000, scans=2)) == 3_000_000
