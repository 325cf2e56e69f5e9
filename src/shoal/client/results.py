"""What calls answer: plain frozen values, and their one translation from the wire."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID

if TYPE_CHECKING:
    from shoal.errors import ShoalError
    from shoal.v1 import inference_pb2

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
    """Requests in the batch that answered this one."""


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
class Classification:
    """The most probable classes of one picture."""

    image_uuid: str
    model_name: str
    model_version: int
    classes: tuple[Class, ...]
    """Most probable first."""
    timing: Timing


@dataclass(frozen=True, slots=True)
class Detection:
    """What was found in one picture, and where."""

    image_uuid: str
    model_name: str
    model_version: int
    boxes: tuple[Box, ...]
    """Highest score first."""
    timing: Timing


Result: TypeAlias = Classification | Detection


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one picture of a ``map()``: a result, or an error that ended this picture only."""

    index: int
    """Its place in the input, from 0."""
    image: Image
    result: Result | None
    error: ShoalError | None

    def unwrap(self) -> Result:
        """The result; raises the error instead if there is one."""
        if self.result is None:
            assert self.error is not None
            raise self.error
        return self.result


@dataclass(frozen=True, slots=True)
class Elapsed:
    """What the client itself measured of one call, in microseconds."""

    upload_us: int
    total_us: int


def classification(reply: inference_pb2.ClassifyReply, elapsed: Elapsed) -> Classification:
    """The value of a ``ClassifyReply``."""
    return Classification(
        reply.image_uuid,
        reply.model_name,
        reply.model_version,
        tuple(Class(found.index, found.label, found.probability) for found in reply.classes),
        _timing(reply.timing, elapsed),
    )


def detection(reply: inference_pb2.DetectReply, elapsed: Elapsed) -> Detection:
    """The value of a ``DetectReply``."""
    return Detection(
        reply.image_uuid,
        reply.model_name,
        reply.model_version,
        tuple(
            Box(box.x, box.y, box.width, box.height, box.index, box.label, box.score)
            for box in reply.boxes
        ),
        _timing(reply.timing, elapsed),
    )  # fmt: skip


def _timing(timing: inference_pb2.Timing, elapsed: Elapsed) -> Timing:
    return Timing(
        timing.queue_us,
        timing.fetch_us,
        timing.decode_us,
        timing.compute_us,
        elapsed.upload_us,
        elapsed.total_us,
        timing.batch_size,
    )
