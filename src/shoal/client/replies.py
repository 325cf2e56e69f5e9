"""From the messages that the service answers with to what the client's calls answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from shoal.client.results import (
    Box,
    Class,
    Classification,
    Detection,
    MaskForm,
    Region,
    RegionOutcome,
    Segmentation,
    Timing,
)
from shoal.errors import Internal, from_status
from shoal.pictures import mask
from shoal.pictures.region import PictureRegion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from shoal.v1 import inference_pb2

    ResultT = TypeVar("ResultT", Classification, Detection, Segmentation)


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
        classes(reply.classes),
        timing(reply.timing, elapsed),
        _seen(reply),
    )


def detection(reply: inference_pb2.DetectReply, elapsed: Elapsed) -> Detection:
    """The value of a ``DetectReply``."""
    return Detection(
        reply.image_uuid,
        reply.model_name,
        reply.model_version,
        tuple(map(box, reply.boxes)),
        timing(reply.timing, elapsed),
        _seen(reply),
    )


def segmentation(reply: inference_pb2.SegmentReply, elapsed: Elapsed) -> Segmentation:
    """The value of a ``SegmentReply``.

    Raises:
        Internal: the reply contradicts itself.
    """
    form = MaskForm.PNG if reply.mask_png else MaskForm.CLASS_MAP if reply.class_map else MaskForm.RUNS
    if not reply.region_replies:  # each of which has a mask of its own
        _check_mask(reply, form)
    return Segmentation(
        reply.image_uuid,
        reply.model_name,
        reply.model_version,
        reply.width,
        reply.height,
        reply.class_bytes,
        tuple(Region(one.index, one.label, one.pixels, tuple(one.counts)) for one in reply.regions),
        tuple(reply.labels),
        timing(reply.timing, elapsed),
        form,
        reply.mask_png or reply.class_map,
        _seen(reply),
    )


def parts(
    replies: Iterable[Any],  # ClassifyRegionReply, DetectRegionReply or SegmentRegionReply
    regions: Sequence[PictureRegion],
    convert: Callable[[Any, Elapsed], ResultT],
    elapsed: Elapsed,
) -> tuple[RegionOutcome[ResultT], ...]:
    """What became of each of ``regions``."""
    outcomes = []
    for region, told in zip(regions, replies, strict=True):
        error = from_status(told.code, told.message) if told.code else None
        outcomes.append(RegionOutcome(region, None if error else convert(told.reply, elapsed), error))
    return tuple(outcomes)


def _seen(
    reply: inference_pb2.ClassifyReply | inference_pb2.DetectReply | inference_pb2.SegmentReply,
) -> PictureRegion | None:
    """What the model saw; None: the whole picture, as far as the answer says."""
    if not reply.HasField("region"):
        return None
    told = reply.region
    return PictureRegion(told.x, told.y, told.width, told.height, told.padding, told.square)


def _check_mask(reply: inference_pb2.SegmentReply, form: MaskForm) -> None:
    mask.check_size(reply.width, reply.height)
    if reply.class_bytes not in {1, 2} or (
        form is MaskForm.CLASS_MAP and len(reply.class_map) != reply.width * reply.height * reply.class_bytes
    ):
        raise Internal(f"the answer for image {reply.image_uuid} has a mask of another size than it says")


def classes(told: Iterable[inference_pb2.Class]) -> tuple[Class, ...]:
    """The values of a reply's classes."""
    return tuple(Class(found.index, found.label, found.probability) for found in told)


def box(told: inference_pb2.Box) -> Box:
    """The value of a ``Box``."""
    return Box(told.x, told.y, told.width, told.height, told.index, told.label, told.score)


def timing(timing: inference_pb2.Timing, elapsed: Elapsed) -> Timing:
    """The value of a ``Timing``, and what the client measured itself."""
    return Timing(
        timing.queue_us,
        timing.fetch_us,
        timing.decode_us,
        timing.compute_us,
        elapsed.upload_us,
        elapsed.total_us,
        timing.batch_size,
        timing.cached,
    )
