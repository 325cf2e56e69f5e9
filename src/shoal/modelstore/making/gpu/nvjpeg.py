"""nvJPEG's batched decoding on the GPU's hardware unit, through its C interface. Needs ``libnvjpeg``, numpy.

Called directly it takes 0.04 ms of CPU a picture of 500 x 375, and hands out planes, so that no colour conversion of a
picture's own waits for the SMs. Its calls return when the pictures are there: it does not keep to a stream's order when
it writes (https://github.com/meta-pytorch/torchcodec/pull/1634), so nothing may be using the target any more.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np

_HARDWARE: Final = 3  # nvjpegBackend_t
_YUV: Final = 1  # nvjpegOutputFormat_t: planes, as they are stored
SHIFTS: Final = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (-1, -1), (-1, -1), (0, 0)], np.int32)
"""log2 of columns and rows that a chroma sample stands for, of nvjpegChromaSubsampling_t: 444, 422, 420, 440; grey."""
_NAMES: Final = ("libnvjpeg.so.13", "libnvjpeg.so.12", "libnvjpeg.so")
_WHEELS: Final = ("nvidia/cu13/lib", "nvidia/nvjpeg/lib")
_MAX_COMPONENTS: Final = 4
_CHROMA: Final = 3
"""Components of a picture with colours."""

IMAGE: Final = np.dtype([("planes", np.uint64, _MAX_COMPONENTS), ("pitches", np.uint64, _MAX_COMPONENTS)])
"""nvjpegImage_t: where a picture's planes go, and how many bytes their rows are apart."""


class Unavailable(Exception):
    """There is no such library, or no such unit in the GPU."""


LAYOUT: Final = np.dtype(
    [
        ("components", np.int32),
        ("sampling", np.int32),
        ("widths", np.int32, _MAX_COMPONENTS),
        ("heights", np.int32, _MAX_COMPONENTS),
    ]
)
"""What a JPEG's header says of its planes, in samples; all 0: it is none for us."""


class HardwareDecoder:
    """Decodes batches, one at a time; ``layout`` may be asked for meanwhile, by one thread."""

    def __init__(self) -> None:
        """Raises Unavailable."""
        self._library = _library()
        plain, size = ctypes.c_void_p, ctypes.c_size_t
        self._library.nvjpegGetImageInfo.argtypes = (plain, plain, size, plain, plain, plain, plain)
        self._handle, self._state = ctypes.c_void_p(), ctypes.c_void_p()
        status = self._library.nvjpegCreateEx(_HARDWARE, None, None, 0, ctypes.byref(self._handle))
        if status:
            raise Unavailable(f"this GPU has no unit that decodes JPEGs (nvJPEG's status {status})")
        _check(self._library.nvjpegJpegStateCreate(self._handle, ctypes.byref(self._state)))
        self._size = 0

    def layouts(self, addresses: Any, lengths: Any) -> Any:
        """``LAYOUT`` ``(n,)`` of JPEGs, by their headers; arguments as of ``decode``."""
        layouts = np.zeros(len(addresses), LAYOUT)
        to = layouts.ctypes.data
        for address, length in zip(addresses.tolist(), lengths.tolist(), strict=True):
            self._library.nvjpegGetImageInfo(self._handle, address, length, to, to + 4, to + 8, to + 24)
            to += LAYOUT.itemsize
        layouts[~_decodable(layouts)] = 0
        return layouts

    def decode(self, addresses: Any, lengths: Any, images: Any, stream: int) -> bool:
        """Decodes into ``images``. Returns whether all could be; if not, any may hold anything.

        Args:
            addresses: uint64 ``(n,)``: where the JPEGs lie, best in memory that the GPU reads by itself.
            lengths: uint64 ``(n,)``: their bytes.
            images: ``IMAGE`` ``(n,)``: memory of the GPU that nothing uses.
            stream: A ``cudaStream_t``; what follows on it sees the pictures.
        """
        if len(addresses) != self._size:
            if self._library.nvjpegDecodeBatchedInitialize(self._handle, self._state, len(addresses), 1, _YUV):
                return False
            self._size = len(addresses)
        pointers = (ctypes.c_void_p(array.ctypes.data) for array in (addresses, lengths, images))
        status = self._library.nvjpegDecodeBatched(self._handle, self._state, *pointers, ctypes.c_void_p(stream))
        if status:
            self._size = 0  # after an error the state is to be initialised again
        return not status


def _decodable(layouts: Any) -> Any:
    components, sampling = layouts["components"], layouts["sampling"]
    known = (sampling >= 0) & (sampling < len(SHIFTS)) & (SHIFTS[np.clip(sampling, 0, len(SHIFTS) - 1), 0] >= 0)
    sides = np.minimum(layouts["widths"], layouts["heights"])
    whole = (sides[:, 0] > 0) & ((components == 1) | (sides[:, 1:_CHROMA].min(axis=1) > 0))
    return known & whole & ((components == 1) | (components == _CHROMA))


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"nvJPEG failed with status {status}")


def _library() -> ctypes.CDLL:
    wheels = [Path(base) / wheel / name for base in sys.path for wheel in _WHEELS for name in _NAMES]
    reasons = []
    for candidate in [*(str(path) for path in wheels if path.is_file()), *_NAMES]:
        try:
            return ctypes.CDLL(candidate)
        except OSError as error:
            reasons.append(str(error))
    raise Unavailable(f"no libnvjpeg: {reasons[-1]}; the wheel nvidia-nvjpeg has it")
