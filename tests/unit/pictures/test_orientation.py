"""The rule is Pillow's ``exif_transpose``: it is asked about the same bytes."""

from __future__ import annotations

import random
import struct
import warnings

import pytest
from PIL import Image

from shoal.pictures.orientation import orientation

FORMATS = {
    1: "B", 2: "c", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I",
    16: "Q", 0: "H", 99: "H",
}  # fmt: skip
"""TIFF's types, and two that there aren't."""
XMP = (b"", b'<x tiff:Orientation="6"/>', b"<tiff:Orientation>8</tiff:Orientation>", b'tiff:Orientation="0"', b"junk")


def as_pillow(exif: bytes, xmp: bytes) -> int | None:
    """What ``exif_transpose`` turns by; None where it fails."""
    image = Image.new("L", (3, 2))
    image.info |= {key: value for key, value in (("exif", exif), ("xmp", xmp)) if value}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = image.getexif().get(0x0112, 1)
    except Exception:
        return None
    return next((number for number in range(1, 9) if number == found), 1)


def value(generator: random.Random, order: str, kind: int, count: int) -> bytes:
    form = FORMATS[kind]
    if kind == 2:
        return b"6" * count
    numbers = [[generator.randint(0, 9) for _ in form] for _ in range(count)]
    return b"".join(struct.pack(order + form, *each) for each in numbers)


def tiff(generator: random.Random) -> bytes:
    """A directory of a few entries, now and then broken."""
    order, count = generator.choice("<>"), generator.randint(0, 4)
    entries, outside = b"", b""
    for _ in range(count):
        tag = generator.choice([0x0112, 0x0112, 0x010F, 0x0100])
        kind, numbers = generator.choice([3, 3, 4, *FORMATS]), generator.choice([0, 1, 1, 1, 2, 3, 5, 400])
        content = value(generator, order, kind, numbers)
        if len(content) > 4:
            place = 8 + 2 + 12 * count + 4 + len(outside)
            outside += content if generator.random() < 0.9 else content[:3]
            content = struct.pack(order + "I", place)
        entries += struct.pack(order + "HHI", tag, kind, numbers) + content.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    told = struct.pack(order + "IH", 8, count if generator.random() < 0.8 else count + 3)
    whole = magic + told + entries + bytes(4) + outside
    return whole if generator.random() < 0.9 else whole[: generator.randint(8, len(whole))]


@pytest.mark.parametrize("seed", range(8))
def test_turns_as_pillow_does(seed: int) -> None:
    generator = random.Random(seed)
    compared = 0
    for _ in range(200):
        exif = generator.choice([b"", b"Exif\0\0", b"Exif\0\0" * 2]) + tiff(generator)
        xmp = generator.choice(XMP)
        wanted = as_pillow(exif, xmp)
        if wanted is not None:
            compared += 1
            assert orientation(exif, xmp) == wanted, (exif, xmp)
    assert compared > 100


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4, 6, 8, 9, 16])
def test_any_integer_type_will_do(order: str, kind: int) -> None:
    magic = b"II*\0" if order == "<" else b"MM\0*"
    inside = struct.pack(order + FORMATS[kind], 6)
    entry = struct.pack(order + "HHI", 0x0112, kind, 1)
    place = struct.pack(order + "I", 26) if len(inside) > 4 else inside.ljust(4, b"\0")
    file = magic + struct.pack(order + "IH", 8, 1) + entry + place + bytes(4) + inside
    assert orientation(file, b"") == as_pillow(file, b"") == 6


def test_garbage_is_upright() -> None:
    generator = random.Random(0)
    for _ in range(500):
        start = generator.choice([b"", b"II*\0", b"MM\0*", b"Exif\0\0II*\0"])
        orientation(start + generator.randbytes(generator.randint(0, 60)), b"")
    assert orientation(b"", b"") == 1


def test_a_directory_without_an_end_takes_no_time() -> None:
    entry = struct.pack("<HHII", 0x0111, 3, 1, 0)
    file = b"II*\0" + struct.pack("<IH", 8, 65535) + entry * 65534 + struct.pack("<HHII", 0x0112, 3, 1, 6)
    assert orientation(file, b"") == 1  # past the entries that are looked at
