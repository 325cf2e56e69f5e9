"""From the rows of a request to a batch of frames on the GPU: decode, colours, crop and resize, EXIF orientation.

JPEGs are decoded by nvJPEG's hardware unit, all at once; two kernels do the rest for the whole batch (pictures.cu).
Needs torch, cuda-core, nvidia-nvjpeg.
"""

from __future__ import annotations

import logging
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from batch import CHANNELS, PICTURE, READY
from cuda.core import Device, LaunchConfig, Program, ProgramOptions, launch
from encoded_rows import NOT_NOW
from hardware_unit import Unit
from nvjpeg import HardwareDecoder, Unavailable

if TYPE_CHECKING:
    from batch import Batch
    from host_memory import HostMemory

_log = logging.getLogger(__name__)
_KERNELS: Final = Path(__file__).with_name("pictures.cu")
_BLOCKS, _THREADS = 32, 256
"""Of a kernel, for each picture."""


class Preparer:
    """Prepares one batch after the other; belongs to one thread."""

    def __init__(self, device: int, size: int, height: int, width: int, memory: HostMemory, unit: Unit) -> None:
        """Compiles the kernels; for batches of up to ``size`` frames."""
        self._height, self._width = height, width
        self._memory = memory
        self._unit = unit
        self.decoder: HardwareDecoder | None = None
        """What decodes; None: nothing in this GPU does."""
        self.trouble = ""
        """Why nothing can be decoded; empty: it can, when it is our turn."""
        try:
            self.decoder = HardwareDecoder()
        except Unavailable as error:
            self.trouble = str(error)
        else:
            unit.watch()
        driver = Device(device)
        driver.set_current()
        # Before the networks of other batches: its kernels are short.
        self._stream = torch.cuda.Stream(device, priority=-1)
        self._launch_stream = driver.create_stream(_Stream(self._stream))
        options = ProgramOptions(arch=f"sm_{driver.arch}")
        program = Program(_KERNELS.read_text(encoding="utf-8"), "c++", options).compile("cubin")
        self._columns, self._rows = (program.get_kernel(name) for name in ("resize_columns", "resize_rows"))
        self._slots = [_Slot(size, height * width * CHANNELS) for _ in range(2)]

    def prepare(self, batch: Batch, frames: Any) -> tuple[torch.cuda.Event, float]:
        """Fills the first rows of ``frames``, uint8 ``(size, height, width, 3)`` on the GPU.

        Returns:
            What to wait for, and the seconds that decoding took.

        Where there is no room for the JPEGs' planes, they are given back like others that can't be decoded.
        """
        slot = self._slots[0]
        self._slots.reverse()
        slot.free.synchronize()
        began = perf_counter()
        with torch.cuda.stream(self._stream):
            self._stage(batch, slot)
            if self.decoder is not None:
                self._decode(batch, slot, self.decoder)
            self._resize(batch, slot, frames)
            slot.free.record(self._stream)
        return slot.free, perf_counter() - began

    def _decode(self, batch: Batch, slot: _Slot, decoder: HardwareDecoder) -> None:
        if not len(batch.jpegs):
            return
        try:
            room = slot.room(batch.plane_bytes, batch.scratch_bytes)
        except torch.cuda.OutOfMemoryError:
            _log.warning("the GPU has no memory left to decode into: lower max_batch_size or shoal.lanes")
            batch.give_back()
            return
        with self._unit.turn() as ours:
            if ours:
                batch.give_addresses(*room)
                batch.decode(decoder, self._stream.cuda_stream)
            else:
                batch.give_back(NOT_NOW)

    def _stage(self, batch: Batch, slot: _Slot) -> None:
        """Copies frames that the GPU can't read where they are."""
        if self._memory.reaches(batch.begin, len(batch.content)):
            return
        for place, row in enumerate(np.flatnonzero(batch.pictures["components"] == READY).tolist()):
            batch.pictures["planes"][row, 0] = slot.stage(place, batch.content, int(batch.rows["offset"][row]))

    def _resize(self, batch: Batch, slot: _Slot, frames: Any) -> None:
        count = len(batch.pictures)
        slot.told[:count] = batch.pictures
        slot.pictures.copy_(slot.pinned, non_blocking=True)
        grid = LaunchConfig(grid=(_BLOCKS, count), block=_THREADS)
        bicubic = np.int32(int(batch.rows["filter"].max(initial=0)))
        pictures = slot.pictures.data_ptr()
        if len(batch.jpegs):
            launch(self._launch_stream, grid, self._columns, pictures, bicubic)
        target = frames.data_ptr(), np.int32(self._width), np.int32(self._height)
        launch(self._launch_stream, grid, self._rows, pictures, bicubic, *target)


def unit_of(device: int) -> Unit:
    """The unit of a GPU, by its number."""
    gpu = str(torch.cuda.get_device_properties(device).uuid)
    return Unit(gpu, shared=bool(Device(device).properties.mps_enabled))


class _Slot:
    """Memory for one batch that is prepared."""

    def __init__(self, size: int, frame_bytes: int) -> None:
        self._size, self._frame_bytes = size, frame_bytes
        self._planes = self._scratch = torch.empty(0, dtype=torch.uint8, device="cuda")
        self._staging: Any = None
        self.pinned = torch.zeros(size * PICTURE.itemsize, dtype=torch.uint8).pin_memory()
        self.told = self.pinned.numpy().view(PICTURE)
        self.pictures = self.pinned.cuda()
        self.free = torch.cuda.Event(blocking=True)

    def room(self, planes: int, scratch: int) -> tuple[int, int]:
        """Addresses of at least so many bytes."""
        if len(self._planes) < planes:
            self._planes = _grown(planes)
        if len(self._scratch) < scratch:
            self._scratch = _grown(scratch)
        return self._planes.data_ptr(), self._scratch.data_ptr()

    def stage(self, place: int, content: Any, offset: int) -> int:
        """The address of a copy of a frame."""
        if self._staging is None:
            self._staging = torch.empty((self._size, self._frame_bytes), dtype=torch.uint8).pin_memory()
        self._staging[place].numpy()[:] = content[offset : offset + self._frame_bytes]
        return int(self._staging[place].data_ptr())


class _Stream:
    """A stream of torch's, as cuda.core takes it."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._stream.cuda_stream


def _grown(size: int) -> torch.Tensor:
    return torch.empty(size + size // 4, dtype=torch.uint8, device="cuda")
