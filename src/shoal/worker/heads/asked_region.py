"""The part of its picture that a request asks about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoal.errors import InvalidRequest
from shoal.pictures.region import PictureRegion
from shoal.v1 import inference_pb2

if TYPE_CHECKING:
    from shoal.pictures.header import PictureSize

MAX_REGIONS: Final = 64
"""Of one request."""


def region_of(request: inference_pb2.ImageRequest) -> PictureRegion | None:
    """The request's region; None: it is about the whole picture."""
    return _read(request.region) if request.HasField("region") else None


def checked_regions(request: inference_pb2.ImageRequest) -> list[PictureRegion | None]:
    """Of a request that comes from outside, its region or its ``regions``; without any, None for the whole picture.

    Raises:
        InvalidRequest: one is no part of a picture; names field and value.
    """
    region, count = region_of(request), len(request.regions)
    if not count:  # as nearly always
        if region is not None:
            region.check()
        return [region]
    if region is not None:
        raise InvalidRequest("region and regions: a request has one of them")
    if count > MAX_REGIONS:
        raise InvalidRequest(f"regions: there are {count}; the limit is {MAX_REGIONS} a request")
    regions = list(map(_read, request.regions))
    for number, each in enumerate(regions):
        each.check(f"regions[{number}]")
    return [*regions]


def of_each_region(request: inference_pb2.ImageRequest) -> list[inference_pb2.ImageRequest]:
    """What it asks of each of its ``regions``, as if in requests of their own; without any, itself."""
    if not request.regions:
        return [request]
    one = inference_pb2.ImageRequest()
    one.CopyFrom(request)
    one.ClearField("regions")
    requests = []
    for region in request.regions:
        each = inference_pb2.ImageRequest()
        each.CopyFrom(one)
        each.region.CopyFrom(region)
        requests.append(each)
    return requests


def tell_region(told: inference_pb2.PictureRegion, region: PictureRegion, picture: PictureSize) -> None:
    """Fills in what the model saw of a picture of this size."""
    cut = region.cut(picture)
    told.x, told.y = cut.left / picture.width, cut.upper / picture.height
    told.width, told.height = cut.width / picture.width, cut.height / picture.height


def _read(told: inference_pb2.PictureRegion) -> PictureRegion:
    return PictureRegion(told.x, told.y, told.width, told.height, told.padding, told.square)
