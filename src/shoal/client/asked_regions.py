"""Parts of a picture in a call: how they are asked for, and what came of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from shoal.client.results import Box, Classification, Detection, RegionOutcome, Segmentation
from shoal.errors import InvalidRequest, Unavailable, from_status
from shoal.pictures.region import PictureRegion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from shoal.client.replies import Elapsed
    from shoal.client.results import AsRegion
    from shoal.v1 import inference_pb2 as pb

    ResultT = TypeVar("ResultT", Classification, Detection, Segmentation)


def ask(request: pb.ImageRequest, region: AsRegion | None, regions: Iterable[AsRegion] | None) -> list[PictureRegion]:
    """Puts them into a request; the ``regions``, which are answered one by one.

    Raises:
        InvalidRequest: one is no part of a picture, or there are both, or no ``regions`` at all.
    """
    if region is not None:
        _fill(request.region, _read(region, "region"))
    if regions is None:
        return []
    if region is not None:
        raise InvalidRequest("region and regions: a call has one of them")
    asked = [_read(each, f"regions[{number}]") for number, each in enumerate(regions)]
    if not asked:
        raise InvalidRequest("regions: there are none; leave it out to ask about the whole picture")
    for each in asked:
        _fill(request.regions.add(), each)
    return asked


def check_seen(request: pb.ImageRequest, reply: pb.ClassifyReply | pb.DetectReply | pb.SegmentReply) -> None:
    """Raises Unavailable unless the answer is about the parts that were asked for."""
    known = request.HasField("region") == reply.HasField("region")
    if not known or len(request.regions) != len(reply.region_replies):
        raise Unavailable("a worker that is older than regions answered for the whole picture; upgrade the workers")


def seen(reply: pb.ClassifyReply | pb.DetectReply | pb.SegmentReply) -> PictureRegion | None:
    """What the model saw; None: the whole picture, as far as the answer says."""
    if not reply.HasField("region"):
        return None
    told = reply.region
    return PictureRegion(told.x, told.y, told.width, told.height, told.padding, told.square)


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


def _read(given: AsRegion, name: str) -> PictureRegion:
    if isinstance(given, Box):
        given = given.x, given.y, given.width, given.height
    try:
        region = given if isinstance(given, PictureRegion) else PictureRegion(*given)
        region.check(name)
    except TypeError:
        text = f"{name} {given!r:.80}: expected a PictureRegion, a Box, or x, y, width and height"
        raise InvalidRequest(text) from None
    return region


def _fill(told: pb.PictureRegion, region: PictureRegion) -> None:
    told.x, told.y, told.width, told.height, told.padding, told.square = region
