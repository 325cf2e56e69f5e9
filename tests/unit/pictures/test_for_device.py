"""Which JPEGs a GPU's decoder may have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shoal.pictures.decode import Decoder
from shoal.pictures.for_device import device_header
from shoal.pictures.jpeg_header import JPEG
from shoal.pictures.read_header import read_header
from support import jpegs
from support.pictures import config, encode, many_scans, quadrants, resized_header

LIMIT = 10**8
PLAIN = encode(quadrants())


def goes(data: bytes, max_pixels: int = LIMIT) -> bool:
    return device_header(data, max_pixels=max_pixels) is not None


def with_segment(data: bytes, segment: bytes) -> bytes:
    """Right behind the start, in place of JFIF's segment."""
    jfif = 2 + 2 + int.from_bytes(data[4:6], "big")
    return data[:2] + segment + data[jfif:]


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("orientation", [1, 6])
def test_baseline_jpegs_go(subsampling: int, orientation: int) -> None:
    data = encode(quadrants(), orientation=orientation, subsampling=subsampling)
    assert device_header(data, max_pixels=LIMIT) == read_header(data, max_pixels=LIMIT, max_scans=1)


def test_grey_ones_with_restarts_and_padding_go() -> None:
    assert goes(encode(quadrants().convert("L")))
    assert goes(encode(quadrants(), restart_marker_blocks=3))
    assert goes(PLAIN + bytes(60))
    assert goes(memoryview(PLAIN))


@pytest.mark.parametrize(
    "data",
    [
        encode(quadrants(), progressive=True),
        encode(quadrants().convert("CMYK")),
        encode(quadrants(), "PNG"),
        encode(quadrants(), "WEBP"),
        many_scans(encode(quadrants(), progressive=True), 3),
        PLAIN[:-2],
        PLAIN[: len(PLAIN) // 2],
        PLAIN + bytes(64),
        PLAIN[:100] + PLAIN[-2:],
        JPEG + b"\xff\xd9",
        b"",
        b"\xff\xd9",
        resized_header(PLAIN, 0, 80),
        resized_header(PLAIN, 6000, 6000),
    ],
)
def test_what_is_not_plain_stays(data: bytes) -> None:
    assert not goes(data)


def without(marker: int) -> bytes:
    """``PLAIN`` without its segments of a kind."""
    data, kept, at = PLAIN, [PLAIN[:2]], 2
    while data[at + 1] != 0xDA:
        length = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] != marker:
            kept.append(data[at : at + length])
        at += length
    return b"".join([*kept, data[at:]])


def twice(marker: int) -> bytes:
    at = PLAIN.index(bytes([0xFF, marker]))
    length = 2 + int.from_bytes(PLAIN[at + 2 : at + 4], "big")
    return PLAIN[:at] + PLAIN[at : at + length] + PLAIN[at:]


def changed(marker: int, offset: int, value: int) -> bytes:
    data = bytearray(PLAIN)
    data[data.index(bytes([0xFF, marker])) + 4 + offset] = value
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        without(0xC4),  # libjpeg has tables of its own for such, a device need not
        without(0xDB),
        twice(0xC0),
        changed(0xDA, 1, 77),  # a component that the frame doesn't have
        changed(0xC0, 7, 0x41),  # 4:1:1
        changed(0xC0, 10, 0x21),  # chroma finer than luma
    ],
    ids=["no Huffman tables", "no quantisation tables", "two frames", "unknown component", "4:1:1", "odd chroma"],
)
def test_what_devices_disagree_about_stays(data: bytes) -> None:
    assert not goes(data)


def test_a_jfif_segment_that_is_too_short_is_none() -> None:
    """By libjpeg's rule, so that the components' names decide."""
    names = bytearray(PLAIN)
    frame, scan = names.index(b"\xff\xc0"), names.index(b"\xff\xda")
    for number, name in enumerate(b"RGB"):
        names[frame + 10 + 3 * number] = names[scan + 5 + 2 * number] = name
    for payload, taken in ((b"JFIF\0" + bytes(9), True), (b"JFIF\0" + bytes(8), False), (b"JFIF\0", False)):
        segment = b"\xff\xe0" + (2 + len(payload)).to_bytes(2, "big") + payload
        assert goes(with_segment(bytes(names), segment)) is taken


def test_a_picture_over_the_pools_limit_stays_and_is_refused_here() -> None:
    assert goes(PLAIN, 120 * 80)
    assert not goes(PLAIN, 120 * 80 - 1)


@pytest.mark.parametrize(
    ("segment", "names", "ycc"),
    [
        (b"", b"\1\2\3", True),
        (b"", b"RGB", False),
        (jpegs.adobe(0), b"\1\2\3", False),
        (jpegs.adobe(1), b"\1\2\3", True),
        (jpegs.adobe(1), b"RGB", True),
    ],
)
def test_colours_that_are_stored_as_rgb_stay(segment: bytes, names: bytes, ycc: bool) -> None:
    """A device takes them for YCbCr; what libjpeg takes them for is told by a picture of red."""
    data = with_segment(encode(Image.new("RGB", (16, 16), (200, 30, 30)), subsampling=0), segment)
    for marker in (b"\xff\xc0", b"\xff\xda"):
        place = data.index(marker) + (10 if marker == b"\xff\xc0" else 5)
        step = 3 if marker == b"\xff\xc0" else 2
        data = b"".join(
            [data[:place], *(names[n : n + 1] + data[place + n * step + 1 : place + (n + 1) * step] for n in range(3)),
             data[place + 3 * step :]]
        )  # fmt: skip
    out = np.zeros((32, 32, 3), np.uint8)
    Decoder(config(), max_pixels=LIMIT, max_scans=1).decode(data, out)
    assert bool(out[16, 16, 0] > 150) is ycc, "libjpeg's rule is another"
    assert goes(data) is ycc


def test_jfif_outweighs_what_adobe_says() -> None:
    assert goes(PLAIN[:2] + jpegs.adobe(0) + PLAIN[2:])


def test_strictness_promises_what_a_device_does_not_keep() -> None:
    for strictness, count in (("strict", 0), ("normal", 1), ("lenient", 1)):
        decoder = Decoder(config(), max_pixels=LIMIT, max_scans=1, jpeg_strictness=strictness)  # type: ignore[arg-type]
        assert (decoder.device_header(PLAIN) is not None) == bool(count)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_any_bytes_give_a_header_or_none(noise: bytes, place: int) -> None:
    for data in (JPEG + noise + b"\xff\xd9", PLAIN[:place] + noise + PLAIN[place:]):
        header = device_header(data, max_pixels=LIMIT)
        assert header is None or header.width * header.height > 0
