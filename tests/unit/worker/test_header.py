from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shoal.errors import InvalidRequest
from shoal.worker.header import ImageFormat, ImageHeader, ImageSize, read_header
from support.pictures import encode, many_scans, quadrants, resized_header

LIMITS = {"max_pixels": 1_000_000, "max_scans": 64}


def read(data: bytes) -> ImageHeader:
    return read_header(data, **LIMITS)


@pytest.mark.parametrize(("form", "options"), [
    ("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True}),
])  # fmt: skip
def test_size_of_each_format(form: str, options: dict[str, bool]) -> None:
    header = read(encode(quadrants(120, 81), form, **options))
    assert (header.width, header.height, header.orientation) == (120, 81, 1)
    assert header.format.upper() == form


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_orientation_of_each_format(form: str, orientation: int) -> None:
    header = read(encode(quadrants(120, 80), form, orientation))
    assert header.orientation == orientation
    assert header.upright == (ImageSize(80, 120) if orientation >= 5 else ImageSize(120, 80))


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("CMYK", 4)])
def test_channels_of_a_jpeg(mode: str, channels: int) -> None:
    assert read(encode(quadrants().convert(mode))).channels == channels


def test_webp_with_alpha_and_orientation_is_extended() -> None:
    image = quadrants(200, 100)
    image.putalpha(100)
    data = encode(image, "WEBP", orientation=6)
    assert data[12:16] == b"VP8X"
    assert read(data) == ImageHeader(ImageFormat.WEBP, 200, 100, 6, channels=4)


def test_takes_any_buffer() -> None:
    assert read(memoryview(encode(quadrants()))).width == 120


def test_baseline_has_one_scan_and_progressive_more() -> None:
    assert read(encode(quadrants())).scans == 1
    assert 2 <= read(encode(quadrants(), progressive=True)).scans <= 20


def test_a_baseline_picture_is_not_searched_for_scans() -> None:
    assert read(encode(quadrants()) + b"\xff\xda" * 5000).scans == 1


def test_scans_behind_the_picture_do_not_count_against_it() -> None:
    data = encode(quadrants(), progressive=True)
    assert read(data + b"\xff\xda" * 5000).scans == read(data).scans


@pytest.mark.parametrize(("data", "message"), [
    (b"", "empty"),
    (b"just some text\n", "expected a JPEG, PNG or WebP"),
    (b"GIF89a" + bytes(40), "expected a JPEG, PNG or WebP"),
    (b"\xff\xd8\xff", "truncated"),
    (encode(quadrants())[:100], "truncated"),
    (encode(quadrants(), "PNG")[:20], "truncated"),
    (encode(quadrants(), "WEBP")[:20], "truncated"),
    (b"\xff\xd8\xff\xd9", "ends before"),
    (b"\xff\xd8\xff\xe0\x00\x02garbage", "truncated"),
    (b"\xff\xd8" + b"\xff\xd0" * 10_000, "too many segments"),
    (b"\xff\xd8\xff\xda\x00\x08", "no frame header"),
    (b"\x89PNG\r\n\x1a\n" + bytes(40), "no header"),
    (b"RIFF\x00\x00\x00\x00WEBPABCD" + bytes(40), "no header"),
    (resized_header(encode(quadrants()), 0, 10), "size is 0 x 10"),
    (resized_header(encode(quadrants()), 20_000, 20_000), "20000 x 20000 pixels; the limit is 1,000,000"),
    (many_scans(encode(quadrants(), progressive=True), 5000), "too many scans; the limit is 64"),
    (many_scans(encode(quadrants(1000, 900), progressive=True), 30), "too many scans, 40, for its size of 1000 x 900"),
])  # fmt: skip
def test_refuses(data: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read(data)


def test_the_largest_progressive_picture_is_fine() -> None:
    assert read(encode(quadrants(1000, 1000), progressive=True)).scans == 10


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_refuses_bombs_of_other_formats(form: str) -> None:
    with pytest.raises(InvalidRequest, match="2000 x 1000 pixels"):
        read(encode(Image.new("RGB", (2000, 1000)), form))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("value", "expected"), [(3, 3), (0, 1), (9, 1), (65535, 1)])
def test_senseless_orientation_is_upright(order: str, value: int, expected: int) -> None:
    tiff = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIHHHIHH", 42, 8, 1, 0x0112, 3, 1, value, 0)
    payload = b"Exif\0\0" + tiff
    data = encode(quadrants())
    segment = b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload
    assert read(data[:2] + segment + data[2:]).orientation == expected


@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF0000WEBPVP8X"]))
def test_any_bytes_answer_or_are_refused(data: bytes, start: bytes) -> None:
    try:
        header = read(start + data)
    except InvalidRequest:
        return
    assert 0 < header.width * header.height <= LIMITS["max_pixels"]
    assert 1 <= header.orientation <= 8
