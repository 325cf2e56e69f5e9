"""Resizing as Pillow does it: separable, antialiased, 8 bits between the two passes; within one level of it.

``cykooz-resizer`` is the same arithmetic with vector instructions, about ten times as fast. It reads Pillow's images in
place, so it is used with the releases of Pillow that it was tried with only; else Pillow itself does the passes.
Both release the GIL.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import PIL
from PIL import Image

from shoal.modelconfig.model import ResizeFilter

try:
    import cykooz_resizer as vectors
except ImportError:  # no wheel for this machine
    vectors = None

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

_TRIED_PILLOWS: Final = ("13",)
HAS_VECTORS: Final = vectors is not None and PIL.__version__.partition(".")[0] in _TRIED_PILLOWS
_FOUR_CHANNELS: Final = "CMYK"
"""A mode whose four bytes a pixel are all the same to either resizer: it neither knows nor multiplies an alpha."""

_SUPPORT: Final = {ResizeFilter.BILINEAR: 1, ResizeFilter.BICUBIC: 2}
"""Source pixels to each side of a target pixel's centre, where the picture isn't reduced."""
_PILLOW: Final = {
    ResizeFilter.BILINEAR: Image.Resampling.BILINEAR,
    ResizeFilter.BICUBIC: Image.Resampling.BICUBIC,
}
_VECTORS: Final = vectors and {
    ResizeFilter.BILINEAR: vectors.ResizeAlg.convolution(vectors.FilterType.bilinear),
    ResizeFilter.BICUBIC: vectors.ResizeAlg.convolution(vectors.FilterType.catmull_rom),
}


class Box(NamedTuple):
    """A part of a picture, in its pixels; fractions are meant."""

    left: float
    upper: float
    right: float
    lower: float


class Job(NamedTuple):
    """What becomes of a picture."""

    box: Box
    """This part of it,"""
    size: tuple[int, int]
    """at this width and height."""
    filter: ResizeFilter
    rows_first: bool = False
    """Whether the height is changed before the width. The second pass sees what the first rounded and clipped."""
    fast: bool = False
    """Whether a few pixels may be two levels off."""


def rows_first(picture: tuple[int, int], resized: tuple[int, int]) -> bool:
    """Whether Pillow, from 13 on, changes the height of a whole ``picture`` first.

    Source: https://github.com/python-pillow/Pillow/pull/9549, and trials of what its wheels do.
    """
    shrinks = [before - after for before, after in zip(picture, resized, strict=True)]
    return shrinks[1] > max(0, 2 * shrinks[0])


def resample(picture: Pixels | Image.Image, job: Job) -> Pixels:
    """The part of ``picture`` that the job names, at the job's size.

    Args:
        picture: RGB: ``(h, w, 3)``, or better ``(h, w, 4)`` with anything in the last channel, which isn't copied; or
            Pillow's, of mode RGB.
        job: The box reaches pixels beyond its edges as far as the filter does, as a crop after the resize would show.

    Returns:
        ``(height, width, 3)`` or ``(height, width, 4)``.
    """
    image, box = _needed(picture, job)
    width, height = job.size
    first, second = _vectors(job)
    if job.rows_first:
        rows = Box(0, box.upper, image.width, box.lower)
        image = _change(image, rows, (image.width, height), job.filter, first)
        return _last_change(image, Box(box.left, 0, box.right, height), job.size, job.filter, second)
    columns = Box(box.left, 0, box.right, image.height)
    image = _change(image, columns, (width, image.height), job.filter, first)
    return _last_change(image, Box(0, box.upper, width, box.lower), job.size, job.filter, second)


def _vectors(job: Job) -> tuple[bool, bool]:
    """In which of the two passes vector instructions, with their 16-bit weights, stay within a level of Pillow.

    A pass with them is a level off in some of a thousand pixels. Bilinear weights only average that in the second pass;
    bicubic ones, whose sizes add up to more than 1, now and then make two levels of it.
    """
    return job.fast or job.filter is ResizeFilter.BILINEAR, True


def _needed(picture: Pixels | Image.Image, job: Job) -> tuple[Image.Image, Box]:
    """What the filter reaches of the picture, and where the box lies in it."""
    box = job.box
    height, width = (picture.height, picture.width) if isinstance(picture, Image.Image) else picture.shape[:2]
    reach = _SUPPORT[job.filter]
    columns = _reached(box.left, box.right, job.size[0], width, reach)
    rows = _reached(box.upper, box.lower, job.size[1], height, reach)
    if not job.rows_first:
        columns = slice(0, width)  # the first pass reads only what it needs of each row
    moved = Box(box.left - columns.start, box.upper - rows.start, box.right - columns.start, box.lower - rows.start)
    if isinstance(picture, Image.Image):
        whole = (columns, rows) == (slice(0, width), slice(0, height))
        cut = picture if whole else picture.crop((columns.start, rows.start, columns.stop, rows.stop))
        return cut, moved
    return as_image(picture[rows, columns]), moved


def _reached(begin: float, end: float, size: int, length: int, support: int) -> slice:
    reach = support * max(1.0, (end - begin) / size) + 1
    return slice(max(0, math.floor(begin - reach)), min(length, math.ceil(end + reach)))


def as_image(pixels: Pixels) -> Image.Image:
    """Four channels are mapped where they lie, three are copied."""
    height, width, channels = pixels.shape
    if channels == 3:  # RGB
        return Image.fromarray(np.ascontiguousarray(pixels))
    flat = np.ascontiguousarray(pixels)
    return Image.frombuffer(_FOUR_CHANNELS, (width, height), flat, "raw", _FOUR_CHANNELS, 0, 1)


def _change(
    image: Image.Image, box: Box, size: tuple[int, int], filter_: ResizeFilter, vectorised: bool
) -> Image.Image:
    """One pass: of ``size`` and ``box`` one side is the image's own."""
    if image.size == size and box == (0, 0, *size):
        return image
    if not (vectorised and HAS_VECTORS):
        return image.resize(size, _PILLOW[filter_], box)
    target = Image.new(image.mode, size)
    _by_vectors(image, target, box, filter_)
    return target


def _last_change(
    image: Image.Image, box: Box, size: tuple[int, int], filter_: ResizeFilter, vectorised: bool
) -> Pixels:
    """``_change``, as an array: vectors write right there, which saves Pillow's zeros before and its copy behind."""
    stays = image.size == size and box == (0, 0, *size)
    if stays or image.mode != _FOUR_CHANNELS or not (vectorised and HAS_VECTORS):
        return np.asarray(_change(image, box, size, filter_, vectorised))
    pixels = np.empty((size[1], size[0], len(_FOUR_CHANNELS)), np.uint8)
    _by_vectors(image, as_image(pixels), box, filter_)
    return pixels


def _by_vectors(image: Image.Image, target: Image.Image, box: Box, filter_: ResizeFilter) -> None:
    options = vectors.ResizeOptions(
        resize_alg=_VECTORS[filter_],
        crop_box=vectors.CropBox(box.left, box.upper, box.right - box.left, box.lower - box.upper),
        use_alpha=False,
    )
    _resizer().resize_pil(image, target, options)


_local = threading.local()


def _resizer() -> vectors.Resizer:
    """One a thread: it has a lock, and holds it while it works."""
    found: vectors.Resizer | None = getattr(_local, "resizer", None)
    if found is None:
        found = _local.resizer = vectors.Resizer()
    return found
