"""Parts of a picture in a call: how they are asked for, and whether the answer is about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.client.results import Box
from shoal.errors import InvalidRequest, Unavailable
from shoal.pictures.region import PictureRegion

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoal.client.results import AsRegion
    from shoal.v1 import inference_pb2 as pb


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
