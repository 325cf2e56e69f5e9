"""Decoding: from a file's bytes straight into one row of a batch's slot.

A JPEG is decoded at a DCT scale of 1/2, 1/4 or 1/8 where that is still at least as large as the model needs (other
scales have no SIMD code and cost more than full size). Orientation is applied last, to the small picture. Transparency
is dropped and the colours stay as stored: what Pillow's ``convert("RGB")`` does, and so what models were trained with.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
import simplejpeg

from shoal.errors import ConfigurationError, InvalidRequest
from shoal.worker import pillow
from shoal.worker.danger import is_quick
from shoal.worker.geometry import place
from shoal.worker.header import ImageFormat, ImageSize, read_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from shoal.modelstore.config import ModelConfig, Tensor
    from shoal.worker.geometry import Placement
    from shoal.worker.header import ImageHeader

    Pixels = NDArray[np.uint8]

_DCT_SCALES: Final = (8, 4, 2)
_AREA_FROM: Final = 2
"""From this reduction on, an area average is as fast as it is exact."""


class Decoder:
    """Decodes pictures for one model; any number of threads may use it at once."""

    def __init__(self, config: ModelConfig, *, max_pixels: int, max_scans: int) -> None:
        """Prepares for the model's input.

        Args:
            config: What the model takes.
            max_pixels: A larger picture is refused, from its header alone.
            max_scans: A progressive JPEG with more scans is refused likewise.

        Raises:
            ConfigurationError: the input is no RGB picture of a fixed size.
        """
        _check_input(config)
        self._config = dataclasses.replace(config, labels=())  # which no decoder reads, and pickling would copy
        self._max_pixels = max_pixels
        self._max_scans = max_scans
        self._direct = config.input.dtype == "uint8" and config.channels_last
        self._mean = np.array(config.mean, np.float32)
        self._scale = 1 / np.array(config.std, np.float32)
        # Batches are what keeps the cores busy; OpenCV's own threads would fight with them.
        cv2.setNumThreads(1)
        # A caller's broken picture is the caller's to hear of, not the log's.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

    @property
    def input(self) -> Tensor:
        """Shape and dtype of a row."""
        return self._config.input

    def decode(self, data: Buffer, out: NDArray[Any]) -> ImageSize:
        """Decodes one picture into ``out``. Releases the GIL in all heavy parts.

        Args:
            data: The bytes of a JPEG, PNG or WebP file.
            out: A row of a slot, of the model's input shape and dtype, C-contiguous. After an error its content is
                undefined.

        Returns:
            The upright picture's size, for the model's head.

        Raises:
            InvalidRequest: not a picture, damaged, truncated or too large.
        """
        header = self.read_header(data)
        self._decode(data, header, out)
        return header.upright

    def read_header(self, data: Buffer) -> ImageHeader:
        """Raises InvalidRequest: see ``shoal.worker.header.read_header``."""
        return read_header(data, max_pixels=self._max_pixels, max_scans=self._max_scans)

    def decode_if_quick(self, data: Buffer, make_out: Callable[[], NDArray[Any]]) -> tuple[ImageSize, bool]:
        """``decode``, of a picture that harms nobody in this process: see ``shoal.worker.danger``.

        Args:
            data: The bytes of a JPEG, PNG or WebP file.
            make_out: Answers the row to decode into; called once, right before that.

        Returns:
            The upright picture's size; and whether it was decoded, rather than being one for a process of its own.

        Raises:
            InvalidRequest: as ``decode``.
        """
        header = self.read_header(data)
        if not is_quick(header, memoryview(data).nbytes):
            return header.upright, False
        self._decode(data, header, make_out())
        return header.upright, True

    def _decode(self, data: Buffer, header: ImageHeader, out: NDArray[Any]) -> None:
        placement = place(self._config, header.upright)
        picture = _read(data, header, placement)
        if self._direct:
            _fill(picture, header, placement, out)
        else:
            pixels = np.empty((self._config.height, self._config.width, 3), np.uint8)
            _fill(picture, header, placement, pixels)
            self._convert(pixels, out)

    def _convert(self, pixels: Pixels, out: NDArray[Any]) -> None:
        """Normalises, where the graph does not, and changes the layout."""
        target = out if self._config.channels_last else out.transpose(1, 2, 0)
        if out.dtype == np.uint8:
            np.copyto(target, pixels)
            return
        np.subtract(pixels, self._mean, out=target, casting="same_kind")
        np.multiply(target, self._scale, out=target, casting="same_kind")


def _check_input(config: ModelConfig) -> None:
    shape = config.input.shape
    if len(shape) != 3 or 3 not in (shape[0], shape[2]) or min(shape) < 1:  # noqa: PLR2004 - H, W, RGB
        raise ConfigurationError(
            f"{config.path}: the input {config.input.name!r} of model {config.name!r} has shape {shape}; "
            "expected (H, W, 3) or (3, H, W) of fixed size"
        )


def _read(data: Buffer, header: ImageHeader, placement: Placement) -> Pixels:
    """The stored picture in RGB, ``(h, w, 3)``, possibly reduced, never below what the placement needs."""
    if header.format is ImageFormat.JPEG:
        return _read_jpeg(data, header, placement)
    return pillow.read(data, header)


def _read_jpeg(data: Buffer, header: ImageHeader, placement: Placement) -> Pixels:
    # simplejpeg takes the smallest scale that keeps these; with 1 / scale exactly, that is the one we chose.
    scale = _dct_scale(placement)
    least = {"min_width": -(-header.width // scale), "min_height": -(-header.height // scale)} if scale > 1 else {}
    try:
        picture: Pixels = simplejpeg.decode_jpeg(data, "RGB", **least)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"the JPEG is truncated or damaged: {error}") from error
    return picture


def _dct_scale(placement: Placement) -> int:
    """The largest reduction that leaves the window no smaller than the content it becomes."""
    reductions = (seen / needed for seen, needed in zip(placement.window, placement.content, strict=True))
    most = min(reductions)
    return next((scale for scale in _DCT_SCALES if scale <= most), 1)


def _fill(picture: Pixels, header: ImageHeader, placement: Placement, out: Pixels) -> None:
    """Cuts the window, resizes it to the content's size, and turns it upright into ``out``; the rest is zero."""
    width, height = placement.content
    target = out[:height, :width]
    out[height:] = 0
    out[:height, width:] = 0
    window = _cut(picture, header, placement)
    if header.orientation == 1:
        _resize(window, target)
        return
    small = np.empty((width, height, 3) if header.transposed else (height, width, 3), np.uint8)
    _resize(window, small)
    _UPRIGHT[header.orientation](small, target)


def _cut(picture: Pixels, header: ImageHeader, placement: Placement) -> Pixels:
    """The placement's window in the stored picture. It is centred, so only a transposition moves it."""
    window = placement.window[::-1] if header.transposed else placement.window
    rows = _centre(picture.shape[0], window[1] / header.height)
    columns = _centre(picture.shape[1], window[0] / header.width)
    return picture[rows, columns]


def _centre(length: int, share: float) -> slice:
    size = min(length, max(1, round(length * share)))
    start = (length - size) // 2
    return slice(start, start + size)


def _resize(source: Pixels, target: Pixels) -> None:
    """Resizes with as much averaging as the reduction asks for, like Pillow's antialiased bilinear filter."""
    height, width = target.shape[:2]
    reduction = max(source.shape[0] / height, source.shape[1] / width)
    if 1 < reduction < _AREA_FROM:
        # Twice as many samples, then the mean of each 2 x 2: half the cost of an area average by a fraction.
        source = _as_pixels(cv2.resize(source, (2 * width, 2 * height), interpolation=cv2.INTER_LINEAR))
    method = cv2.INTER_AREA if reduction > 1 else cv2.INTER_LINEAR
    cv2.resize(source, (width, height), dst=target, interpolation=method)


def _as_pixels(picture: NDArray[Any]) -> Pixels:
    return picture.astype(np.uint8, copy=False)


def _transverse(source: Pixels, target: Pixels) -> None:
    cv2.transpose(cv2.rotate(source, cv2.ROTATE_180), dst=target)


_UPRIGHT: Final[dict[int, Callable[[Pixels, Pixels], object]]] = {
    2: lambda source, target: cv2.flip(source, 1, dst=target),
    3: lambda source, target: cv2.rotate(source, cv2.ROTATE_180, dst=target),
    4: lambda source, target: cv2.flip(source, 0, dst=target),
    5: lambda source, target: cv2.transpose(source, dst=target),
    6: lambda source, target: cv2.rotate(source, cv2.ROTATE_90_CLOCKWISE, dst=target),
    7: _transverse,
    8: lambda source, target: cv2.rotate(source, cv2.ROTATE_90_COUNTERCLOCKWISE, dst=target),
}
"""What undoes each EXIF orientation (Exif 2.32, tag 274)."""
