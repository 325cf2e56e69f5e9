"""Slots of models that decode on their device: a row is a JPEG as it came, or pixels; see ``encoded_rows``.

What comes first lies first, so that a request is as small as its pictures. There is always room for what is still to
come as pixels: a JPEG that would take that isn't put in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shoal.engine.limits import LARGE_JPEG_BYTES, MAX_PICTURES_BYTES, picture_bytes, row_bytes
from shoal.engine.triton import encoded_rows
from shoal.engine.triton.slot import TritonSlot
from shoal.errors import Internal

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from shoal.engine.triton.encoded_rows import JpegRow
    from shoal.engine.triton.sharing import Sharing
    from shoal.modelconfig.model import ModelConfig


class EncodedSlot(TritonSlot):
    """Implements ``shoal.engine.Slot``, and takes JPEGs. Belongs to one event loop; only pixels are written elsewhere.

    A batch may put each of its pictures once, under a number of its own; then move rows to the front.
    """

    def __init__(self, config: ModelConfig, sharing: Sharing) -> None:
        self._most = config.batching.max_batch_size
        self._pixel_bytes = row_bytes(config.input)
        self._begin = self._most * encoded_rows.ENTRY.itemsize
        usual = encoded_rows.aligned(picture_bytes(config))
        large = max(usual, min(LARGE_JPEG_BYTES, MAX_PICTURES_BYTES // self._most))
        self._usual_end, largest_end = (self._begin + self._most * room for room in (usual, large))
        # The tensor's bytes are a multiple of its rows.
        super().__init__(config, sharing, self._usual_end + self._most, largest_end + self._most)
        self._end = self._usual_end
        self._table = encoded_rows.table(self._memory, self._most)
        self.clear()

    def clear(self) -> None:
        """Forgets the rows: a batch begins."""
        self._table[:] = 0
        self._free = self._begin
        if self.region is None:  # what goes in messages stays small
            self._end = self._usual_end
        self._placed = 0
        self._spaces: dict[int, int] = {}
        """Where a row's pixels have their place, by its number."""

    def row(self, number: int) -> NDArray[Any]:
        """The pixels of a row, which becomes one of pixels; the same place each time."""
        begin = self._spaces.get(number)
        if begin is None:
            if self._free + self._pixel_bytes > self._end:
                raise Internal(f"model {self._config.name!r}: a slot of {self._most} rows was asked for one more")
            begin = self._spaces[number] = self._take(self._pixel_bytes)
        self._table[number] = encoded_rows.pixel_entry(begin, self._pixel_bytes)
        content = self._memory[begin : begin + self._pixel_bytes]
        return content.view(self._config.input.dtype).reshape(self._config.input.shape)

    def put_jpeg(self, number: int, data: Buffer, picture: JpegRow) -> bool:
        """Copies a JPEG into the row ``number``; False, and nothing is changed, where it doesn't fit."""
        content = np.frombuffer(memoryview(data), np.uint8)
        still_to_come = self._most - self._placed - 1
        after = self._free + encoded_rows.aligned(content.size)
        if not self._reaches(after + still_to_come * encoded_rows.aligned(self._pixel_bytes)):
            return False
        begin = self._take(content.size)
        self._memory[begin : begin + content.size] = content
        self._table[number] = encoded_rows.jpeg_entry(begin, content.size, picture)
        return True

    def has_files(self, size: int) -> bool:
        """Whether there are JPEGs in its first ``size`` rows."""
        return bool(self._table["kind"][:size].any())

    def content(self, number: int) -> bytes:
        """A copy of a row's bytes."""
        return encoded_rows.content_of(self._memory, self._table[number]).tobytes()

    def move(self, source: int, target: int) -> None:
        """Moves an entry of the table; no content is copied. ``source`` gets the place that ``target`` had."""
        if source == target:
            return
        self._table[target] = self._table[source]
        places = self._spaces.pop(source, None), self._spaces.pop(target, None)
        for number, place in zip((target, source), places, strict=True):
            if place is not None:
                self._spaces[number] = place

    def ask_for(self, request: Any, size: int) -> None:  # a protobuf message
        """Puts ``encoded_rows`` into a ``ModelInferRequest``; a row that nobody wrote to is pixels of any value."""
        for number in np.flatnonzero(self._table["length"][:size] == 0):
            self.row(int(number))
        entries = self._table[:size]
        shape = encoded_rows.shape(size, int((entries["offset"] + entries["length"]).max()))
        tensor = request.inputs.add(name=encoded_rows.INPUT, datatype="UINT8", shape=shape)
        self._put(request, tensor, self._memory[: shape[0] * shape[1]])

    def _reaches(self, end: int) -> bool:
        """Whether the rows may go up to there: if need be, and if there is memory, they do from now on."""
        if end > self._end and self.region is not None and self.region.reserve(end + self._most):
            self._end = end
        return end <= self._end

    def _take(self, size: int) -> int:
        begin = self._free
        self._free += encoded_rows.aligned(size)
        self._placed += 1
        return begin
