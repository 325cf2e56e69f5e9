"""The part of its picture that a request asks about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoal.errors import InvalidRequest
from shoal.pictures.region import PictureRegion

if TYPE_CHECKING:
    from shoal.pictures.header import PictureSize
    from shoal.v1 import inference_pb2

MAX_REGIONS: Final = 64
"""Of one request."""


def region_of(request: inference_pb2.ImageRequest) -> PictureRegion | None:
    """The request's region; None: it is about the whole picture."""
    return _read(request.region) if request.HasField("region") else None


def checked_region(request: inference_pb2.ImageRequest) -> PictureRegion | None:
    """``region_of``, of a request that comes from outside.

    Raises:
        InvalidRequest: its region, or one of its ``regions``, is no part of a picture; names field and value.
    """
    region, count = region_of(request), len(request.regions)
    if region is None and not count:  # as nearly always
        return None
    if region is not None and count:
        raise InvalidRequest("region and regions: a request has one of them")
    if count > MAX_REGIONS:
        raise InvalidRequest(f"regions: there are {count}; the limit is {MAX_REGIONS} a request")
    if region is not None:
        region.check()
    for number, each in enumerate(request.regions):
        _read(each).check(f"regions[{number}]")
    return region


def tell_region(told: inference_pb2.PictureRegion, region: PictureRegion, picture: PictureSize) -> None:
    """Fills in what the model saw of a picture of this size."""
    cut = region.cut(picture)
    told.x, told.y = cut.left / picture.width, cut.upper / picture.height
    told.width, told.height = cut.width / picture.width, cut.height / picture.height


def _read(told: inference_pb2.PictureRegion) -> PictureRegion:
    return PictureRegion(told.x, told.y, told.width, told.height, told.padding, told.square)
