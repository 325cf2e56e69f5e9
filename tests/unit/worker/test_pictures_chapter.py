"""What docs/pictures.md says of each kind of file, held against Pillow's ``convert("RGB")``."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from shoal.errors import InvalidRequest
from shoal.pictures.decode import Decoder
from support.pictures import config, encode, quadrants

Pixels = np.ndarray[Any, Any]
SIDE = 16
RAMP = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) * 257
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP.T], -1)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(values: Pixels, colour: int, depth: int, *before: bytes, kind: str = ">u2") -> bytes:
    """A PNG of ``(h, w)`` or ``(h, w, channels)`` samples of 8 or 16 bits, or of rows that are packed already."""
    height, width = values.shape[:2]
    rows = values.astype(np.uint8 if depth <= 8 else kind)
    width = width * 8 // depth if depth < 8 else width
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + b"".join(before) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def decode(data: bytes) -> Pixels:
    width, height = Image.open(io.BytesIO(data)).size
    out = np.zeros((height, width, 3), np.uint8)
    Decoder(config(height, width), max_pixels=10**6, max_scans=64).decode(data, out)
    return out


def with_alpha(form: str, alpha: int, **options: Any) -> bytes:
    image = quadrants().convert("RGBA")
    image.putalpha(alpha)
    return encode(image, form, **options)


def animated(form: str, **options: Any) -> bytes:
    more = [Image.new("RGB", (120, 80)), Image.new("RGB", (120, 80), (9, 9, 9))]
    return encode(quadrants(), form, save_all=True, append_images=more, **options)


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
PACKED = (np.arange(64).reshape(8, 8) * 37 % 256).astype(np.uint8)
PALETTE = chunk(b"PLTE", bytes(range(256)) * 3)

AS_PILLOW = {
    "JPEG": encode(quadrants()),
    "JPEG, grey": encode(quadrants().convert("L")),
    "JPEG, progressive": encode(quadrants(), progressive=True),
    "JPEG, CMYK": encode(quadrants().convert("CMYK")),
    "JPEG, ICC profile": encode(quadrants(), icc_profile=PROFILE),
    "PNG": encode(quadrants(), "PNG"),
    "PNG, ICC profile": encode(quadrants(), "PNG", icc_profile=PROFILE),
    "PNG, gamma": png(COLOURS >> 8, 2, 8, chunk(b"gAMA", struct.pack(">I", 100_000))),
    "PNG, significant bits": png(COLOURS >> 8, 2, 8, chunk(b"sBIT", b"\5\6\5")),
    "PNG, grey": png(RAMP >> 8, 0, 8),
    "PNG, grey and alpha": png(np.stack([RAMP >> 8, RAMP.T >> 8], -1), 4, 8),
    "PNG, palette": encode(quadrants().convert("P"), "PNG"),
    "PNG, palette with transparency": encode(quadrants().convert("P"), "PNG", transparency=0),
    "PNG, a transparent colour": png(COLOURS >> 8, 2, 8, chunk(b"tRNS", bytes(6))),
    "PNG, invisible": with_alpha("PNG", 0),
    "PNG, half visible": with_alpha("PNG", 128),
    "PNG, 16 bit colour": png(COLOURS, 2, 16),
    "PNG, 16 bit colour and alpha": png(np.dstack([COLOURS, RAMP]), 6, 16),
    **{f"PNG, {depth} bit grey": png(PACKED, 0, depth) for depth in (1, 2, 4)},
    **{f"PNG, {depth} bit palette": png(PACKED, 3, depth, PALETTE[: 12 + 768]) for depth in (1, 2, 4)},
    "PNG, animated": animated("PNG"),
    "WebP": encode(quadrants(), "WEBP"),
    "WebP, lossless": encode(quadrants(), "WEBP", lossless=True),
    "WebP, invisible": with_alpha("WEBP", 0, lossless=True, exact=True),
    "WebP, half visible": with_alpha("WEBP", 128),
    "WebP, ICC profile": encode(quadrants(), "WEBP", icc_profile=PROFILE),
    "WebP, animated": animated("WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", AS_PILLOW)
def test_pixels_are_what_pillow_converts_to_rgb(kind: str) -> None:
    data = AS_PILLOW[kind]
    wanted = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode(data) - wanted).max() <= 1


def test_16_bit_grey_keeps_its_brightness_where_pillow_clips_it() -> None:
    data = png(RAMP, 0, 16)
    assert np.abs(decode(data)[..., 0].astype(int) - (RAMP >> 8)).max() <= 1
    assert np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).min(initial=255, where=RAMP[..., None] > 255) == 255


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "AVIF", "JPEG2000"])
def test_other_formats_are_refused_by_name(form: str) -> None:
    data = encode(quadrants(), form)
    with pytest.raises(InvalidRequest, match="expected a JPEG, PNG or WebP"):
        Decoder(config(), max_pixels=10**6, max_scans=64).decode(data, np.zeros((32, 32, 3), np.uint8))
