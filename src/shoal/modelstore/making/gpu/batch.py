"""The rows of one request: which JPEGs can be decoded, where their planes go, what the kernels are told.

Needs numpy alone; all is made for a whole batch at once, since a batch of 64 comes every 5 ms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from encoded_rows import DONE, JPEG, NOT_DECODED, NOT_NOW, PIXELS
from nvjpeg import IMAGE, SHIFTS

if TYPE_CHECKING:
    from nvjpeg import HardwareDecoder

LEAVE, READY = -1, 0
"""In place of a picture's components: nothing is to be done; it is a frame already."""
CHANNELS: Final = 3
_ALIGNMENT: Final = 256
_SUPPORT: Final = np.array([1, 2])
"""Source pixels to each side that a filter reaches, by its number."""
_LARGEST_BYTES: Final = 2**31
"""Of a batch's planes; what is beyond is left to others."""
PICTURE: Final = np.dtype(
    [
        ("planes", np.uint64, 3),
        ("scratch", np.uint64),
        ("pitches", np.int32, 3),
        ("size", np.int32, 2),
        ("shifts", np.int32, 2),
        ("components", np.int32),
        ("target", np.int32, 2),
        ("first_row", np.int32),
        ("rows_needed", np.int32),
        ("orientation", np.int32),
        ("box", np.float32, 4),
    ],
    align=True,
)
"""``Picture`` of pictures.cu."""


class Batch:
    """The rows of one request, and where their JPEGs' planes will lie; made while another is decoded."""

    def __init__(self, content: Any, rows: Any, decoder: HardwareDecoder | None) -> None:
        """Reads the JPEGs' headers.

        Args:
            content: uint8, one-dimensional: a tensor of ``encoded_rows``.
            rows: Its table.
            decoder: None: nothing can be decoded here.
        """
        self.content = content
        self.rows = rows
        self.begin = content.ctypes.data
        self.status = np.full(len(rows), DONE, np.int32)
        self.pictures = np.zeros(len(rows), PICTURE)
        self.images = np.zeros(len(rows), IMAGE)
        self.plane_bytes = self.scratch_bytes = 0
        self._addresses = rows["offset"] + np.uint64(self.begin)
        ready = rows["kind"] == PIXELS
        self.pictures["components"] = np.where(ready, READY, LEAVE)
        self.pictures["planes"][:, 0] = np.where(ready, self._addresses, 0)
        self.jpegs = self._decodable(np.flatnonzero(rows["kind"] == JPEG), decoder)
        """Their rows: those that can be decoded, as far as headers tell."""

    def _decodable(self, jpegs: Any, decoder: HardwareDecoder | None) -> Any:
        self.status[jpegs] = NOT_NOW if decoder is None else NOT_DECODED
        if decoder is None or not len(jpegs):
            return jpegs[:0]
        table = self.rows[jpegs]
        layouts = decoder.layouts(self._addresses[jpegs], table["length"])
        pitches = -(-layouts["widths"][:, :CHANNELS] // _ALIGNMENT) * _ALIGNMENT
        sizes = pitches.astype(np.int64) * layouts["heights"][:, :CHANNELS]
        ends = np.cumsum(sizes.sum(axis=1))
        told = (layouts["widths"][:, 0] == table["width"]) & (layouts["heights"][:, 0] == table["height"])
        usable = (layouts["components"] > 0) & told & (ends <= _LARGEST_BYTES)
        jpegs, table, layouts, pitches, sizes = (of[usable] for of in (jpegs, table, layouts, pitches, sizes))
        self.status[jpegs] = DONE
        self._place(jpegs, layouts, pitches, sizes)
        self._resize(jpegs, table, layouts)
        return jpegs

    def _place(self, jpegs: Any, layouts: Any, pitches: Any, sizes: Any) -> None:
        """One plane behind the other."""
        ends = np.cumsum(sizes).reshape(sizes.shape)
        images = np.zeros(len(jpegs), IMAGE)
        images["planes"][:, :CHANNELS] = ends - sizes
        images["pitches"][:, :CHANNELS] = pitches
        self.images[jpegs] = images
        self.plane_bytes = int(sizes.sum())
        self.pictures["pitches"][jpegs] = pitches
        self.pictures["components"][jpegs] = layouts["components"]
        self.pictures["shifts"][jpegs] = SHIFTS[layouts["sampling"]]

    def _resize(self, jpegs: Any, table: Any, layouts: Any) -> None:
        """What the kernels are told."""
        first, needed = _reached(table, layouts["heights"][:, 0])
        scratch = needed * table["columns"].astype(np.int64) * CHANNELS
        self.scratch_bytes = int(scratch.sum())
        told = {
            "size": np.stack([layouts["widths"][:, 0], layouts["heights"][:, 0]], axis=1),
            "target": np.stack([table["columns"], table["rows"]], axis=1),
            "first_row": first,
            "rows_needed": needed,
            "orientation": table["orientation"],
            "box": np.stack([table[edge] for edge in ("left", "upper", "right", "lower")], axis=1),
            "scratch": np.cumsum(scratch) - scratch,
        }
        for name, values in told.items():
            self.pictures[name][jpegs] = values

    def give_addresses(self, planes: int, scratch: int) -> None:
        """Where the planes and what is between the two passes will be."""
        self.images["planes"][self.jpegs] += np.uint64(planes)
        self.pictures["planes"][self.jpegs] = self.images["planes"][self.jpegs, :CHANNELS]
        self.pictures["scratch"][self.jpegs] += np.uint64(scratch)

    def give_back(self, status: int = NOT_DECODED) -> None:
        """None of its JPEGs can be decoded here."""
        self.status[self.jpegs] = status
        self.pictures["components"][self.jpegs] = LEAVE
        self.jpegs = self.jpegs[:0]

    def decode(self, decoder: HardwareDecoder, stream: int) -> None:
        """All at once; if that fails, each alone, to find those that can't be."""
        if not len(self.jpegs) or self._decode(decoder, self.jpegs, stream):
            return
        for row in self.jpegs:
            if not self._decode(decoder, row[np.newaxis], stream):
                self.status[row] = NOT_DECODED
                self.pictures["components"][row] = LEAVE

    def _decode(self, decoder: HardwareDecoder, rows: Any, stream: int) -> bool:
        return decoder.decode(self._addresses[rows], self.rows["length"][rows], self.images[rows], stream)


def _reached(table: Any, heights: Any) -> tuple[Any, Any]:
    """The first row of the source that the second pass reads, and how many; one more to each side than it does."""
    support = _SUPPORT[table["filter"]]
    reach = support * np.maximum(1.0, (table["lower"] - table["upper"]) / table["rows"]) + 1
    first = np.clip(table["upper"] - reach, 0, heights).astype(np.int32)
    last = np.clip(table["lower"] + reach + 1, first, heights).astype(np.int32)
    return first, last - first
