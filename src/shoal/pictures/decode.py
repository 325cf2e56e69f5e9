"""Decoding: from a file's bytes straight into one row of a batch's slot.

The pixels are those of Pillow's ``convert("RGB")`` and ``resize``, which models were trained with: transparency is
dropped and the colours stay as stored. A JPEG is decoded at a DCT scale of 1/2, 1/4 or 1/8 where that is still several
times as large as the model needs (other scales have no SIMD code and cost more than full size). Orientation is applied
last, to the small picture.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Final, Protocol

import cv2
import numpy as np
from PIL import Image

from shoal.errors import ConfigurationError, InvalidRequest
from shoal.pictures import pillow
from shoal.pictures.danger import is_quick
from shoal.pictures.for_device import device_header
from shoal.pictures.geometry import place
from shoal.pictures.header import PictureFormat, PictureSize
from shoal.pictures.jpeg import read_jpeg
from shoal.pictures.read_header import read_header
from shoal.pictures.resample import Box, Job, resample, rows_first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from shoal.modelconfig.model import ModelConfig, Tensor
    from shoal.pictures.geometry import Placement
    from shoal.pictures.header import PictureHeader
    from shoal.pictures.region import PictureRegion
    from shoal.service.spec import Decoding, JpegStrictness

    Pixels = NDArray[np.uint8]

_DCT_SCALES: Final = (8, 4, 2)
_MARGINS: Final[dict[Decoding, int]] = {"exact": 4, "fast": 1}
"""How much larger than what the model takes a JPEG decoded at a DCT scale is at least. At 4, photographs come out
within 4 levels, 0.35 in the mean: see docs/pictures.md."""
_STORED_UPRIGHT: Final = 1
_TRANSPOSED: Final = 5
_FROM_RIGHT: Final = frozenset({2, 3, 6, 7})
_FROM_BELOW: Final = frozenset({3, 4, 7, 8})
"""EXIF orientations whose stored columns, or rows, run against the upright picture's x, or y."""


class Shelf(Protocol):
    """Where header and pixels of one picture are kept, as they are read, for regions that are asked for later.

    Decoders that share one have the same limits: what one let pass is not refused by another.
    """

    header: PictureHeader | None
    """Once it was read."""

    def pixels(self, scale: int) -> Pixels | None:
        """Those that were decoded at this scale, for reading."""
        ...

    def keep(self, scale: int, pixels: Pixels) -> None:
        """For the next one, if there is room."""
        ...


class Decoder:
    """Decodes pictures for one model; any number of threads may use it at once."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        max_pixels: int,
        max_scans: int,
        decoding: Decoding = "exact",
        jpeg_strictness: JpegStrictness = "normal",
    ) -> None:
        """Prepares for the model's input.

        Args:
            config: What the model takes.
            max_pixels: A larger picture is refused, from its header alone.
            max_scans: A progressive JPEG with more scans is refused likewise.
            decoding: ``fast`` gives up some likeness to Pillow.
            jpeg_strictness: What becomes of JPEGs that aren't quite.

        Raises:
            ConfigurationError: the input is no RGB picture of a fixed size.
        """
        _check_input(config)
        self._config = dataclasses.replace(config, labels=())  # which no decoder reads, and pickling would copy
        self._max_pixels = max_pixels
        self._max_scans = max_scans
        self._decoding: Decoding = decoding
        self._strictness: JpegStrictness = jpeg_strictness
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

    def decode(self, data: Buffer, out: NDArray[Any], region: PictureRegion | None = None) -> PictureSize:
        """Decodes one picture, or a region of it, into ``out``. Releases the GIL in all heavy parts.

        Args:
            data: The bytes of a JPEG, PNG or WebP file.
            out: A row of a slot, of the model's input shape and dtype, C-contiguous. After an error its content is
                undefined.
            region: What the model is to see; None: all of it.

        Returns:
            The upright picture's size, for the model's head.

        Raises:
            InvalidRequest: not a picture, damaged, truncated or too large.
        """
        (size,) = self.decode_parts(data, out, [region])
        return size

    def decode_parts(
        self, data: Buffer, out: NDArray[Any], regions: Sequence[PictureRegion | None]
    ) -> Iterator[PictureSize]:
        """``decode``, of several regions: the pixels are decoded once, and ``out`` is filled anew with each in turn."""
        header = self.read_header(data)
        placements = self.place(header, regions)
        picture = self.read_pixels(data, header, self.dct_scale(placements))
        for placement in placements:
            self.cut(picture, header, placement, out)
            yield header.upright

    def place(self, header: PictureHeader, regions: Iterable[PictureRegion | None]) -> list[Placement]:
        """Where each region of a picture lands in the model's input."""
        return [place(self._config, header.upright, region) for region in regions]

    def dct_scale(self, placements: Iterable[Placement]) -> int:
        """By how much a JPEG may be reduced while it is decoded, so that there is enough left for each of them."""
        return min(_dct_scale(placement, _MARGINS[self._decoding]) for placement in placements)

    def read_pixels(self, data: Buffer, header: PictureHeader, scale: int = 1) -> Pixels | Image.Image:
        """The stored picture in RGB, see ``resample``; reduced by ``scale`` where that is possible.

        Raises:
            InvalidRequest: as ``decode``.
        """
        if header.format is PictureFormat.JPEG:
            return read_jpeg(data, header, scale, self._strictness)
        return pillow.read(data, header)

    def cut(
        self, picture: Pixels | Image.Image, header: PictureHeader, placement: Placement, out: NDArray[Any]
    ) -> None:
        """Fills ``out`` with what the model sees of a picture that ``read_pixels`` read."""
        fast = self._decoding == "fast"
        if self._direct:
            _fill(picture, header, placement, out, fast=fast)
            return
        pixels = np.empty((self._config.height, self._config.width, 3), np.uint8)
        _fill(picture, header, placement, pixels, fast=fast)
        self._convert(pixels, out)

    def read_header(self, data: Buffer) -> PictureHeader:
        """Raises InvalidRequest, as ``read_header`` does."""
        return read_header(data, max_pixels=self._max_pixels, max_scans=self._max_scans)

    def device_header(self, data: Buffer) -> PictureHeader | None:
        """The header of a JPEG that a GPU may decode; None: it isn't one for it."""
        if self._strictness == "strict":  # which promises to notice all damage
            return None
        return device_header(data, max_pixels=self._max_pixels)

    def whole_job(self, header: PictureHeader) -> Job:
        """What has to be done with a picture that was decoded at its full size, and isn't turned upright."""
        return _whole_job(header, place(self._config, header.upright))

    def decode_if_quick(
        self,
        data: Buffer,
        outs: Sequence[Callable[[], NDArray[Any]]],
        regions: Sequence[PictureRegion | None],
        shelf: Shelf | None = None,
    ) -> tuple[PictureSize, bool]:
        """``decode``, of a picture that harms nobody in this process: see ``shoal.pictures.danger``.

        Args:
            data: The bytes of a JPEG, PNG or WebP file.
            outs: Each answers the row for one of the regions; called once, right before that is written.
            regions: As in ``decode_parts``.
            shelf: Where pixels of this picture may be, and are kept.

        Returns:
            The upright picture's size; and whether it was decoded, rather than being one for a process of its own.

        Raises:
            InvalidRequest: as ``decode``.
        """
        header = self._header(data, shelf)
        if not is_quick(header, memoryview(data).nbytes):
            return header.upright, False
        placements = self.place(header, regions)
        picture = self._pixels(data, header, self.dct_scale(placements), shelf)
        for make_out, placement in zip(outs, placements, strict=True):
            self.cut(picture, header, placement, make_out())
        return header.upright, True

    def _header(self, data: Buffer, shelf: Shelf | None) -> PictureHeader:
        if shelf is None:
            return self.read_header(data)
        shelf.header = header = shelf.header or self.read_header(data)
        return header

    def _pixels(self, data: Buffer, header: PictureHeader, scale: int, shelf: Shelf | None) -> Pixels | Image.Image:
        kept = None if shelf is None else shelf.pixels(scale)
        if kept is not None:
            return kept
        picture = self.read_pixels(data, header, scale)
        if shelf is not None and isinstance(picture, np.ndarray):
            shelf.keep(scale, picture)
        return picture

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
    if len(shape) != 3 or 3 not in (shape[0], shape[2]) or min(shape) < 1:  # H, W, RGB
        raise ConfigurationError(
            f"{config.path}: the input {config.input.name!r} of model {config.name!r} has shape {shape}; "
            "expected (H, W, 3) or (3, H, W) of fixed size"
        )


def _dct_scale(placement: Placement, margin: int) -> int:
    """The largest reduction that leaves the window ``margin`` times as large as the content it becomes."""
    reductions = (seen / needed for seen, needed in zip(placement.window, placement.content, strict=True))
    most = min(reductions) / margin
    return next((scale for scale in _DCT_SCALES if scale <= most), 1)


def _fill(
    picture: Pixels | Image.Image, header: PictureHeader, placement: Placement, out: Pixels, *, fast: bool = False
) -> None:
    """Resizes the window to the content's size and turns it upright into ``out``; the rest is zero."""
    width, height = placement.content
    out[height:] = 0
    out[:height, width:] = 0
    small = resample(*_within(picture, header, placement, _job(picture, header, placement, fast=fast)))
    target = out[:height, :width]
    if small.shape[2] == 3:  # RGB
        _UPRIGHT[header.orientation](small, target)
    elif header.orientation == _STORED_UPRIGHT:
        cv2.cvtColor(small, cv2.COLOR_RGBA2RGB, dst=target)
    else:
        _UPRIGHT[header.orientation](_as_pixels(cv2.cvtColor(small, cv2.COLOR_RGBA2RGB)), target)


def _job(picture: Pixels | Image.Image, header: PictureHeader, placement: Placement, *, fast: bool) -> Job:
    """The placement in the pixels of the stored, and maybe reduced, picture."""
    whole = _whole_job(header, placement)
    return whole._replace(box=_reduced(whole.box, picture, header), fast=fast)


def _size(picture: Pixels | Image.Image) -> tuple[int, int]:
    """Width and height."""
    return picture.size if isinstance(picture, Image.Image) else (picture.shape[1], picture.shape[0])


def _scale(picture: Pixels | Image.Image, header: PictureHeader) -> int:
    """By how much the picture was reduced."""
    size = _size(picture)
    if size == (header.width, header.height):
        return 1
    sizes = {(-(-header.width // scale), -(-header.height // scale)): scale for scale in _DCT_SCALES}
    if size not in sizes:
        raise InvalidRequest(
            f"the {header.format} is damaged: it has pixels of {size[0]} x {size[1]}, and says otherwise"
        )
    return sizes[size]


def _reduced(box: Box, picture: Pixels | Image.Image, header: PictureHeader) -> Box:
    """A box of the stored picture in the pixels that there are.

    A reduced side is rounded up: its last pixel stands for less than the others, and a box may end within it.
    """
    scale, most = _scale(picture, header), 2 * _size(picture)
    return Box(*(min(edge / scale, end) for edge, end in zip(box, most, strict=True)))


def _whole_job(header: PictureHeader, placement: Placement) -> Job:
    """The placement in the pixels of the stored picture, at its full size."""
    cut = placement.cut
    size = placement.content[::-1] if header.transposed else placement.content
    upright_first = rows_first((cut.width, cut.height), placement.resized)
    return Job(
        stored_box(placement, header.orientation),
        size,
        placement.filter,
        upright_first != header.transposed,
        fast=False,
    )


def _within(
    picture: Pixels | Image.Image, header: PictureHeader, placement: Placement, job: Job
) -> tuple[Pixels | Image.Image, Job]:
    """The picture's cut, and the job in it: no filter reaches beyond that."""
    if placement.cut == (0, 0, *placement.picture):
        return picture, job
    stored = _stored(Box(*placement.cut), placement.picture, header.orientation)
    cut = _reduced(stored, picture, header)
    left, upper, right, lower = math.floor(cut.left), math.floor(cut.upper), math.ceil(cut.right), math.ceil(cut.lower)
    if isinstance(picture, Image.Image):
        part = np.asarray(picture.crop((left, upper, right, lower)))
    else:
        part = picture[upper:lower, left:right]
    inner = Box(cut.left > left, cut.upper > upper, stored.right < header.width, stored.lower < header.height)
    mixed = inner._replace(right=inner.right and cut.right < right, lower=inner.lower and cut.lower < lower)
    box = Box(job.box.left - left, job.box.upper - upper, job.box.right - left, job.box.lower - upper)
    return _without(part, mixed) if any(mixed) else part, job._replace(box=box)


def _without(part: Pixels, mixed: Box) -> Pixels:
    """A reduced picture's cut, without its ``mixed`` edges: their pixels stand for some outside of it, too.

    The neighbours inside take their places. A cut that is reduced is several pixels large.
    """
    part = part.copy()
    if mixed.left:
        part[:, 0] = part[:, 1]
    if mixed.right:
        part[:, -1] = part[:, -2]
    if mixed.upper:
        part[0] = part[1]
    if mixed.lower:
        part[-1] = part[-2]
    return part


def stored_box(placement: Placement, orientation: int) -> Box:
    """The placement's window in the picture as it is stored."""
    left, upper = placement.corner
    upright = Box(left, upper, left + placement.window[0], upper + placement.window[1])
    return _stored(upright, placement.picture, orientation)


def _stored(upright: Box, picture: PictureSize, orientation: int) -> Box:
    """A box of the upright ``picture`` in the stored one; Exif 2.32, tag 274."""
    left, upper, right, lower = upright
    if orientation in _FROM_RIGHT:
        left, right = picture.width - right, picture.width - left
    if orientation in _FROM_BELOW:
        upper, lower = picture.height - lower, picture.height - upper
    return Box(upper, left, lower, right) if orientation >= _TRANSPOSED else Box(left, upper, right, lower)


def _as_pixels(picture: NDArray[Any]) -> Pixels:
    return picture.astype(np.uint8, copy=False)


def _transverse(source: Pixels, target: Pixels) -> None:
    cv2.transpose(cv2.rotate(source, cv2.ROTATE_180), dst=target)


_UPRIGHT: Final[dict[int, Callable[[Pixels, Pixels], object]]] = {
    1: lambda source, target: np.copyto(target, source),
    2: lambda source, target: cv2.flip(source, 1, dst=target),
    3: lambda source, target: cv2.rotate(source, cv2.ROTATE_180, dst=target),
    4: lambda source, target: cv2.flip(source, 0, dst=target),
    5: lambda source, target: cv2.transpose(source, dst=target),
    6: lambda source, target: cv2.rotate(source, cv2.ROTATE_90_CLOCKWISE, dst=target),
    7: _transverse,
    8: lambda source, target: cv2.rotate(source, cv2.ROTATE_90_COUNTERCLOCKWISE, dst=target),
}
"""What undoes each EXIF orientation (Exif 2.32, tag 274)."""
