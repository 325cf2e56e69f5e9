"""Pictures as a worker sends them to the GPU runner."""

from __future__ import annotations

from itertools import cycle, islice
from typing import TYPE_CHECKING

import numpy as np

from shoal.engine.triton import encoded_rows
from shoal.pictures.decode import Decoder
from shoal.pictures.header import PictureFormat
from shoal.worker.device_rows import jpeg_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shoal.engine.triton.encoded_rows import JpegRow
    from shoal.modelconfig.model import ModelConfig

_BATCHES = 4


def tensors(config: ModelConfig, pictures: Sequence[bytes], size: int) -> list[NDArray[np.uint8]]:
    """Some batches of ``size`` pictures, as ``encoded_rows``; all of it JPEGs, also those that a device can't take."""
    endless = cycle(pictures)
    return [packed([(data, row(config, data)) for data in islice(endless, size)]) for _ in range(_BATCHES)]


def row(config: ModelConfig, data: bytes) -> JpegRow:
    """What is to become of a JPEG."""
    decoder = Decoder(config, max_pixels=10**9, max_scans=10**6)
    header = decoder.read_header(data)
    assert header.format is PictureFormat.JPEG
    return jpeg_row(header, decoder.whole_job(header))


def packed(rows: Sequence[tuple[bytes, JpegRow]]) -> NDArray[np.uint8]:
    """A tensor of ``encoded_rows``."""
    begins, total = [], len(rows) * encoded_rows.ENTRY.itemsize
    for data, _ in rows:
        begins.append(total)
        total += encoded_rows.aligned(len(data))
    tensor = np.zeros(encoded_rows.shape(len(rows), total), np.uint8)
    table, flat = encoded_rows.table(tensor, len(rows)), tensor.reshape(-1)
    for number, (begin, (data, told)) in enumerate(zip(begins, rows, strict=True)):
        flat[begin : begin + len(data)] = np.frombuffer(data, np.uint8)
        table[number] = encoded_rows.jpeg_entry(begin, len(data), told)
    return tensor
