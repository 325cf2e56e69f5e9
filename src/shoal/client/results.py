"""What calls answer: plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar
from uuid import UUID

from shoal.pictures import mask
from shoal.pictures.region import PictureRegion

if TYPE_CHECKING:
    from shoal.errors import ShoalError

ResultT_co = TypeVar("ResultT_co", covariant=True)

Image: TypeAlias = Path | bytes | UUID | str
"""A picture: its file, its bytes as encoded (JPEG, PNG, WebP), or the uuid of one that is in the store already."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Where one request's time went, in microseconds. All but the upload and the total come from the service."""

    queue_us: int
    fetch_us: int
    decode_us: int
    compute_us: int
    """The engine's time for the whole batch."""
    upload_us: int
    """Reading and uploading the picture; 0 for a reference."""
    total_us: int
    """From the call of the client's method to its answer: upload, network and retries included."""
    batch_size: int
    """Requests in the batch that answered this one; 0: none did, as it is ``cached``."""
    cached: bool = False
    """The answer is that to an earlier request for the same content."""


@dataclass(frozen=True, slots=True)
class Class:
    """One class of a classification."""

    index: int
    label: str
    probability: float
    """Softmax, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class Box:
    """One box, normalised to [0, 1] in the upright (EXIF-oriented) picture; x, y is its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    index: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class RegionOutcome(Generic[ResultT_co]):
    """What became of one of a call's ``regions``: a result, or an error that ended this region only."""

    region: PictureRegion
    """As it was asked for."""
    result: ResultT_co | None
    error: ShoalError | None

    def unwrap(self) -> ResultT_co:
        """The result; raises the error instead if there is one."""
        if self.result is None:
            assert self.error is not None
            raise self.error
        return self.result


@dataclass(frozen=True, slots=True)
class Classification:
    """The most probable classes of one picture."""

    image_uuid: str
    model_name: str
    model_version: int
    classes: tuple[Class, ...]
    """Most probable first."""
    timing: Timing
    region: PictureRegion | None = None
    """What the model saw, where a region was asked for: in whole pixels, with its padding."""
    parts: tuple[RegionOutcome[Classification], ...] = ()
    """Of ``regions``, in their order; then there are no classes."""


@dataclass(frozen=True, slots=True)
class Detection:
    """What was found in one picture, and where."""

    image_uuid: str
    model_name: str
    model_version: int
    boxes: tuple[Box, ...]
    """Highest score first."""
    timing: Timing
    region: PictureRegion | None = None
    """What the model saw, where a region was asked for: in whole pixels, with its padding."""
    parts: tuple[RegionOutcome[Detection], ...] = ()
    """Of ``regions``, in their order; then there are no boxes."""


class MaskForm(StrEnum):
    """How a mask travels. ``Segmentation`` reads each."""

    PNG = "png"
    """The smallest, mostly; any picture library reads it."""
    RUNS = "runs"
    """COCO's run-length encoding of each class."""
    CLASS_MAP = "class_map"
    """A byte or two for each pixel, as they are."""


class MaskSize(StrEnum):
    """How many pixels a mask has. It covers the whole upright picture in any case."""

    MODEL = "model"
    """As fine as the model's own output, in the picture's aspect."""
    PICTURE = "picture"
    """The upright picture's size; the model's pixels become blocks."""


@dataclass(frozen=True, slots=True)
class Region:
    """A class that a mask shows."""

    index: int
    label: str
    pixels: int
    """How many of the mask's show it."""
    counts: tuple[int, ...] = field(repr=False)
    """With ``MaskForm.RUNS``: COCO's uncompressed run-length encoding, down the columns; else empty."""


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A class for each pixel of one picture."""

    image_uuid: str
    model_name: str
    model_version: int
    width: int
    """The mask's, in pixels."""
    height: int
    class_bytes: int
    """What a pixel takes in ``class_map()``: 1 or 2."""
    regions: tuple[Region, ...]
    """Largest first."""
    labels: tuple[str, ...]
    """All classes', by index; empty where the model has none."""
    timing: Timing
    form: MaskForm
    data: bytes = field(repr=False)
    """The PNG or the class map as it came; empty with ``MaskForm.RUNS``."""
    region: PictureRegion | None = None
    """What the model saw, where a region was asked for: in whole pixels, with its padding. The rest is unseen."""
    parts: tuple[RegionOutcome[Segmentation], ...] = ()
    """Of ``regions``, in their order; then there is no mask."""

    @property
    def unseen(self) -> int:
        """The index of pixels that the model did not see, beside its crop: 255 or 65535, which is no class."""
        return mask.unseen(self.class_bytes)

    def class_map(self) -> bytes:
        """A class index a pixel, rows from the top; of two bytes, the low one comes first.

        As an array: ``numpy.frombuffer(found.class_map(), f"<u{found.class_bytes}").reshape(found.height, -1)``.
        """
        if self.form is MaskForm.CLASS_MAP:
            return self.data
        if self.form is MaskForm.PNG:
            return mask.decode_png(self.data).indices
        size = self.width, self.height
        return mask.from_runs(size, self.class_bytes, ((one.index, one.counts) for one in self.regions)).indices

    def rows(self) -> list[memoryview]:
        """The class indices, a row each: ``rows()[y][x]``."""
        indices = memoryview(self.class_map())
        stride = self.width * self.class_bytes
        rows = (indices[start : start + stride] for start in range(0, len(indices), stride))
        return [row if self.class_bytes == 1 else row.cast("H") for row in rows]

    def to_png(self) -> bytes:
        """The mask as a PNG: with the colours of PASCAL VOC, or, where indices take two bytes, grey of 16 bits."""
        if self.form is MaskForm.PNG:
            return self.data
        return mask.encode_png((self.width, self.height), self.class_bytes, self.class_map())


AsRegion: TypeAlias = PictureRegion | Box | tuple[float, float, float, float]
"""A part of a picture: with padding and square, or a box that was found, or x, y, width and height."""

Result: TypeAlias = Classification | Detection | Segmentation


@dataclass(frozen=True, slots=True)
class Outcome(Generic[ResultT_co]):
    """What became of one picture of a ``map()``: a result, or an error that ended this picture only."""

    index: int
    """Its place in the input, from 0."""
    image: Image
    result: ResultT_co | None
    error: ShoalError | None

    def unwrap(self) -> ResultT_co:
        """The result; raises the error instead if there is one."""
        if self.result is None:
            assert self.error is not None
            raise self.error
        return self.result
