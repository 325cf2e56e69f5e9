"""Rows of a batch as a GPU runner takes them: each is a JPEG, or pixels that are ready; how both lie in one tensor.

``shoal model add --runner gpu`` copies this file beside the runner's ``model.py``, so it imports numpy alone.

The tensor ``encoded_rows`` is uint8 ``[n, ceil(total / n)]``, n rows of one batch, and its bytes are in C order:

- a table of n entries of 64 bytes, little endian, see ``ENTRY``;
- the rows' bytes, anywhere behind it, each row's beginning at a multiple of 64. Bytes between them mean nothing.

The answer's ``row_report`` is int32 ``[n, 4]``: status, and microseconds in the runner's queue, of decoding, and of the
execution of the row's batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

INPUT: Final = "encoded_rows"
"""The tensor's name."""
REPORT: Final = "row_report"
"""The name of the output that says what became of each row."""

ALIGNMENT: Final = 64
PIXELS: Final = 0
"""A kind of row: ready pixels, of the data type and shape of the model's own picture input."""
JPEG: Final = 1
"""A kind of row: a whole JPEG file."""
FILTERS: Final = ("bilinear", "bicubic")
"""Pillow's, by their numbers."""

DONE: Final = 0
"""A status: the row's outputs are the model's."""
NOT_DECODED: Final = 1
"""A status: the device can't decode the row, whose outputs mean nothing. Decode it elsewhere and send its pixels."""
NOT_NOW: Final = 2
"""A status: as before, and the same of any other JPEG for now."""
REPORT_FIELDS: Final = ("status", "wait_us", "decode_us", "compute_us")

ENTRY: Final = np.dtype(
    [
        ("kind", "<u4"),
        ("orientation", "<u4"),  # 1 to 8, Exif 2.32, tag 274
        ("offset", "<u8"),  # of the row's bytes, from the tensor's start
        ("length", "<u8"),  # of them
        ("width", "<u4"),  # of the JPEG as it is stored
        ("height", "<u4"),
        ("left", "<f4"),  # the box of the stored picture that is shown, in its pixels
        ("upper", "<f4"),
        ("right", "<f4"),
        ("lower", "<f4"),
        ("columns", "<u4"),  # what the box becomes, before it is turned upright; the rest of the frame is zero
        ("rows", "<u4"),
        ("filter", "<u4"),  # a number of FILTERS
        ("reserved", "<u4"),
    ]
)
assert ENTRY.itemsize == ALIGNMENT


class JpegRow(NamedTuple):
    """What is to become of a JPEG: the fields of ``ENTRY`` that say it."""

    orientation: int
    width: int
    height: int
    left: float
    upper: float
    right: float
    lower: float
    columns: int
    rows: int
    filter: int


def aligned(size: int) -> int:
    """The next multiple of ``ALIGNMENT``."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def shape(rows: int, total: int) -> tuple[int, int]:
    """The tensor's, for ``rows`` rows whose table and bytes end at ``total``."""
    return rows, -(-total // rows)


def table(content: NDArray[np.uint8], rows: int) -> NDArray[Any]:
    """The entries of the first ``rows`` rows in a tensor's bytes: ``(rows,)`` of ``ENTRY``, a view.

    Raises:
        ValueError: there is no room for so many.
    """
    flat = content.reshape(-1)
    if flat.size < rows * ENTRY.itemsize:
        raise ValueError(f"{INPUT}: {flat.size:,} bytes hold no table of {rows} rows")
    return flat[: rows * ENTRY.itemsize].view(ENTRY)


def jpeg_entry(offset: int, length: int, picture: JpegRow) -> tuple[float, ...]:
    """For a table: the row is a JPEG, which lies there."""
    return JPEG, picture.orientation, offset, length, *picture[1:], 0


def pixel_entry(offset: int, length: int) -> tuple[float, ...]:
    """For a table: the row is pixels, which lie there."""
    return PIXELS, 1, offset, length, *[0] * (len(ENTRY.names or ()) - 4)


def read(content: NDArray[np.uint8], rows: int, pixel_bytes: int, frame: Sequence[int]) -> NDArray[Any]:
    """The table of a tensor that somebody sent, checked: nothing it says leads out of the tensor or of the frame.

    Args:
        content: The tensor.
        rows: In it.
        pixel_bytes: Of a row that is pixels.
        frame: Width and height of the model's picture.

    Raises:
        ValueError: an entry makes no sense; names the row.
    """
    entries = table(content, rows).copy()
    ends = entries["offset"] + entries["length"]
    jpeg, pixels = entries["kind"] == JPEG, entries["kind"] == PIXELS
    turned = entries["orientation"] >= 5  # rows are columns
    wide = np.where(turned, entries["rows"], entries["columns"])
    high = np.where(turned, entries["columns"], entries["rows"])
    boxes = (entries["left"] < entries["right"]) & (entries["upper"] < entries["lower"])
    faults = (
        ("its kind is unknown", ~(jpeg | pixels)),
        ("its bytes begin in the table", entries["offset"] < rows * ENTRY.itemsize),
        ("its bytes aren't aligned", entries["offset"] % ALIGNMENT != 0),
        ("its bytes end behind the tensor", (ends > content.size) | (ends < entries["offset"])),
        ("its pixels are of another size", pixels & (entries["length"] != pixel_bytes)),
        ("its orientation is unknown", jpeg & ((entries["orientation"] < 1) | (entries["orientation"] > 8))),
        ("it has no size", jpeg & ((entries["width"] == 0) | (entries["height"] == 0))),
        ("its box is empty", jpeg & ~boxes),
        ("it becomes nothing, or more than the frame", jpeg & ~_fits(wide, high, frame)),
        ("its filter is unknown", jpeg & (entries["filter"] >= len(FILTERS))),
    )
    for reason, wrong in faults:
        if wrong.any():
            raise ValueError(f"{INPUT}: row {int(np.argmax(wrong))}: {reason}")
    return entries


def _fits(wide: NDArray[Any], high: NDArray[Any], frame: Sequence[int]) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (wide > 0) & (wide <= frame[0]) & (high > 0) & (high <= frame[1])
    return inside


def content_of(content: NDArray[np.uint8], entry: Any) -> NDArray[np.uint8]:  # one of a table
    """The bytes of the row that a checked ``entry`` is about, a view."""
    begin, length = int(entry["offset"]), int(entry["length"])
    return content.reshape(-1)[begin : begin + length]
