from __future__ import annotations

import contextlib
import io
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from shoal.errors import InvalidRequest
from shoal.pictures.header import PictureFormat, PictureHeader, PictureSize
from shoal.pictures.jpeg_header import without_metadata
from shoal.pictures.read_header import read_header
from support.pictures import encode, many_scans, quadrants, resized_header

LIMITS = {"max_pixels": 1_000_000, "max_scans": 64}


def read(data: bytes) -> PictureHeader:
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
    assert header.upright == (PictureSize(80, 120) if orientation >= 5 else PictureSize(120, 80))


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("CMYK", 4)])
def test_channels_of_a_jpeg(mode: str, channels: int) -> None:
    assert read(encode(quadrants().convert(mode))).channels == channels


def test_webp_with_alpha_and_orientation_is_extended() -> None:
    image = quadrants(200, 100)
    image.putalpha(100)
    data = encode(image, "WEBP", orientation=6)
    assert data[12:16] == b"VP8X"
    assert read(data) == PictureHeader(PictureFormat.WEBP, 200, 100, 6, channels=4)


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


def tiff(order: str, value: int, kind: int = 3) -> bytes:
    """A directory with an orientation, SHORT or LONG."""
    number = struct.pack(order + {3: "HH", 4: "I"}[kind], *[value, 0][: 2 if kind == 3 else 1])
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "IHHHI", 8, 1, 0x0112, kind, 1) + number + bytes(4)


def segment(payload: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def raw_profile(data: bytes) -> bytes:
    """ImageMagick's text of an EXIF file."""
    digits = data.hex().encode()
    lines = b"\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return b"\nexif\n%8d\n%s\n" % (len(data), lines)


def jpeg_with(*segments: bytes) -> bytes:
    data = encode(quadrants())
    return data[:2] + b"".join(segments) + data[2:]


def png_with(*chunks: bytes, last: bool = False) -> bytes:
    data = encode(quadrants(), "PNG")
    place = len(data) - 12 if last else 33
    return data[:place] + b"".join(chunks) + data[place:]


def webp_with(exif: bytes = b"", xmp: bytes = b"") -> bytes:
    return encode(quadrants(), "WEBP", **{key: value for key, value in (("exif", exif), ("xmp", xmp)) if value})


SIX, EIGHT, NONE = tiff(">", 6), tiff("<", 8), b"II*\0\x08\0\0\0\0\0" + bytes(4)
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'
ADOBE = b"http://ns.adobe.com/xap/1.0/\0"
PROFILE = b"Raw profile type exif\0"
ITXT = b"XML:com.adobe.xmp\0%s\0\0\0%s"


@pytest.mark.parametrize("data", [
    *(jpeg_with(segment(b"Exif\0\0" + tiff(order, 6, kind))) for order in "<>" for kind in (3, 4)),
    jpeg_with(segment(b"Exif\0\0" + SIX), segment(b"Exif\0\0" + EIGHT)),
    jpeg_with(segment(b"Exif\0\0" + SIX), segment(b"Exif\0\0" + NONE)),
    jpeg_with(segment(b"Exif\0\0" + NONE), segment(b"Exif\0\0" + SIX)),
    jpeg_with(segment(b"Exif\0\0Exif\0\0" + SIX)),
    jpeg_with(segment(ADOBE + XMP)),
    jpeg_with(segment(ADOBE + XMP), segment(b"Exif\0\0" + EIGHT)),
    jpeg_with(segment(b"Exif\0\0" + NONE), segment(ADOBE + XMP)),
    jpeg_with(segment(b"Exif\0\0" + NONE), segment(ADOBE + XMP), segment(ADOBE + b"no more")),
    png_with(chunk(b"eXIf", SIX)),
    png_with(chunk(b"eXIf", SIX), last=True),
    png_with(chunk(b"eXIf", b"Exif\0\0" + SIX)),
    png_with(chunk(b"eXIf", SIX), chunk(b"eXIf", EIGHT)),
    png_with(chunk(b"tEXt", PROFILE + raw_profile(b"Exif\0\0" + SIX))),
    png_with(chunk(b"tEXt", PROFILE + raw_profile(SIX)), last=True),
    png_with(chunk(b"tEXt", PROFILE + b"\nexif\n 6\nnot hexadecimal")),
    png_with(chunk(b"zTXt", PROFILE + b"\0" + zlib.compress(raw_profile(b"Exif\0\0" + tiff("<", 6, 4))))),
    png_with(chunk(b"zTXt", PROFILE + b"\0broken")),
    png_with(chunk(b"iTXt", PROFILE + b"\0\0en\0\0" + raw_profile(SIX))),
    png_with(chunk(b"iTXt", PROFILE + b"\1\0\0\0" + zlib.compress(raw_profile(SIX)))),
    png_with(chunk(b"tEXt", b"exif\0" + SIX)),
    png_with(chunk(b"tEXt", PROFILE + raw_profile(EIGHT)), chunk(b"eXIf", SIX)),
    png_with(chunk(b"iTXt", ITXT % (b"\0\0", XMP))),
    png_with(chunk(b"iTXt", ITXT % (b"\1\0", zlib.compress(XMP)))),
    png_with(chunk(b"iTXt", ITXT % (b"\0\0", XMP)), chunk(b"eXIf", EIGHT)),
    webp_with(SIX), webp_with(b"Exif\0\0" + EIGHT), webp_with(tiff("<", 6, 4)), webp_with(xmp=XMP),
    webp_with(NONE, XMP), webp_with(EIGHT, XMP),
])  # fmt: skip
def test_whoever_tells_the_orientation_pillow_is_followed(data: bytes) -> None:
    image = Image.open(io.BytesIO(data))
    with contextlib.suppress(ValueError, SyntaxError):  # Pillow fails on what it can't read; here that is upright
        turned = ImageOps.exif_transpose(image)
        assert read(data).upright == turned.size
        assert read(data).orientation == image.getexif().get(0x0112, 1)
        return
    assert read(data).orientation == 1


def test_compressed_text_has_a_bound() -> None:
    bomb = zlib.compress(raw_profile(SIX) + bytes(2**26), 9)
    assert read(png_with(chunk(b"zTXt", PROFILE + b"\0" + bomb))).orientation == 1


def test_a_png_of_chunks_alone_is_not_walked_to_its_end() -> None:
    flood = chunk(b"tEXt", b"a\0b") * 30_000
    assert read(png_with(flood, chunk(b"eXIf", SIX))).orientation == 1
    assert read(png_with(chunk(b"eXIf", SIX), flood)).orientation == 6


@pytest.mark.parametrize("junk", [b"\xff", b"\0", b"\xff\0", b"\xff\xff\0"])
def test_junk_between_segments_is_passed_in_one_go(junk: bytes) -> None:
    data = encode(quadrants())
    long = junk * (2**21 // len(junk))
    assert read(data[:20] + long + data[20:]) == read(data)
    with pytest.raises(InvalidRequest, match="truncated"):
        read(data[:20] + long)


def test_metadata_are_cut_out_and_nothing_else() -> None:
    plain = encode(quadrants())
    told = plain[:2] + segment(b"Exif\0\0" + SIX) + b"\xff\xfe\0\x05abc" + segment(ADOBE + XMP) + plain[2:]
    assert without_metadata(told) == plain
    assert without_metadata(plain) == plain
    assert without_metadata(plain[:20] + bytes(2**20) + b"\xff\xff" + plain[20:]) == plain
    empty = plain[:20] + b"\xff\xe5\0\0\xff\xdd\0\0" + plain[20:]  # lengths that count not even themselves
    assert without_metadata(empty) == plain[:20] + b"\xff\xdd\0\0" + plain[20:]
    cmyk = encode(quadrants().convert("CMYK"))  # whose inks Adobe's segment tells the meaning of
    assert without_metadata(cmyk) == cmyk
