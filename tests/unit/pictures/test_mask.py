from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shoal.errors import Internal
from shoal.pictures import mask

MASKS = st.integers(1, 2).flatmap(
    lambda size: st.tuples(st.just(size), st.integers(1, 20), st.integers(1, 20)).flatmap(
        lambda shape: st.tuples(
            st.just(shape), st.binary(min_size=shape[0] * shape[1] * shape[2], max_size=shape[0] * shape[1] * shape[2])
        )
    )
)
SMALL = mask.encode_png((3, 2), 1, bytes(range(6)))


@given(MASKS)
def test_a_png_is_read_back_by_us_and_by_others(made: tuple[tuple[int, int, int], bytes]) -> None:
    (class_bytes, width, height), indices = made
    png = mask.encode_png((width, height), class_bytes, indices)
    assert mask.decode_png(png) == (width, height, class_bytes, indices)
    expected = np.frombuffer(indices, f"<u{class_bytes}").reshape(height, width)
    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == ("P" if class_bytes == 1 else "I;16")
        assert (np.asarray(image) == expected).all()
    shown = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    if class_bytes == 1:
        expected = np.frombuffer(mask.palette(), np.uint8).reshape(256, 3)[expected, ::-1]
    assert (shown == expected).all()


def test_the_colours_are_those_of_pascal_voc() -> None:
    colours = [tuple(mask.palette()[3 * index : 3 * index + 3]) for index in range(256)]
    assert colours[:5] == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]  # background … bottle
    assert colours[15] == (192, 128, 128)  # person
    assert colours[255] == (224, 224, 192)  # void
    assert len(set(colours)) == 256


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of(width: int, height: int, rows: bytes, bits: int = 8, kind: int = 3) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    return SMALL[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("png", "reason"),
    [
        (b"", "not a PNG"),
        (b"GIF89a", "not a PNG"),
        (SMALL[:8], "another kind"),
        (SMALL[:40], "truncated"),
        (SMALL[:-26], "truncated"),
        (SMALL.replace(b"IDAT", b"JDAT"), "truncated"),
        (png_of(2, 1, bytes([1, 0, 0])), "filtered"),
        (png_of(2, 1, bytes(6), kind=2), "another kind"),
        (png_of(2**16, 2**16, b""), "the limit is"),
        (png_of(0, 1, b""), "the limit is"),
    ],
)
def test_what_is_no_mask(png: bytes, reason: str) -> None:
    with pytest.raises(Internal, match=reason):
        mask.decode_png(png)


def test_a_png_bomb_is_not_unpacked() -> None:
    assert mask.decode_png(png_of(2, 1, bytes(10_000_000))).indices == bytes(2)


def test_runs_go_down_the_columns() -> None:
    # The example of COCO's API: M=[0 1; 1 1; 0 0], down the columns 0 1 0 1 1 0.
    assert mask.from_runs((2, 3), 1, [(7, [1, 1, 1, 2, 1])]).indices == bytes([255, 7, 7, 7, 255, 255])


def test_runs_of_indices_of_two_bytes() -> None:
    made = mask.from_runs((2, 1), 2, [(258, [1, 1])])
    assert made.indices == struct.pack("<HH", 65535, 258)


@pytest.mark.parametrize(("index", "counts"), [(1, [0, 7]), (255, [0, 1]), (300, [0, 1])])
def test_runs_that_do_not_fit(index: int, counts: list[int]) -> None:
    with pytest.raises(Internal, match=f"the runs of class {index} don't fit a mask of 3 x 2"):
        mask.from_runs((3, 2), 1, [(index, counts)])
