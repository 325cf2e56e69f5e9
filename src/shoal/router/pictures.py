"""Calls that bring their picture along, for those who have no more than curl.

``POST /v1/pictures`` stores it; ``POST /v1/models/MODEL:classify`` with a picture as the body asks something of it,
too. The transcoder makes a gRPC call of either, so key, permissions and rate are checked as of any other. Then a worker
takes the picture in as it comes, by Envoy's external processing, and what goes on to a batcher is a message with its
uuid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoal.batching.wire import PICTURES_CREATE
from shoal.router.clusters import ANY_WORKER
from shoal.router.clusters import INTAKE as INTAKE_CLUSTER
from shoal.router.resources import extension, typed
from shoal.service.identity import CLIENT_HEADER

if TYPE_CHECKING:
    from shoal.runtime.envoy_http2 import Json

INTAKE: Final = "envoy.filters.http.ext_proc"
NO_INTAKE: Final = "ext_proc_error"
"""How Envoy's details of a call begin where no worker answers the filter."""
_KIND: Final = "envoy.extensions.filters.http.ext_proc.v3"
_TOLD: Final = (":path", CLIENT_HEADER)
"""What a worker hears of the call's headers."""


def intake_filter() -> Json:
    """Behind what may refuse a call, before what bounds its message; off except on routes with ``taken_in``."""
    return {
        **extension(
            INTAKE,
            f"{_KIND}.ExternalProcessor",
            grpc_service={"envoy_grpc": {"cluster_name": INTAKE_CLUSTER}},
            processing_mode={
                "request_header_mode": "SEND",
                "request_body_mode": "FULL_DUPLEX_STREAMED",
                "request_trailer_mode": "SEND",
                "response_header_mode": "SKIP",
                "response_trailer_mode": "SKIP",
            },
            forward_rules={"allowed_headers": {"patterns": [{"exact": name} for name in _TOLD]}},
            status_on_error={"code": "ServiceUnavailable"},
            stat_prefix="pictures",
        ),
        "disabled": True,
    }


def taken_in() -> Json:
    """Turns the filter on, in the ``typed_per_filter_config`` of the route that a call has first: that decides."""
    return {INTAKE: typed(f"{_KIND}.ExtProcPerRoute", overrides={})}


def left_alone(refusals: list[Json]) -> list[Json]:
    """Routes that refuse a call: its picture is not taken in before."""
    off = {INTAKE: typed(f"{_KIND}.ExtProcPerRoute", disabled=True)}
    return [{**each, "typed_per_filter_config": {**each["typed_per_filter_config"], **off}} for each in refusals]


def create_route() -> Json:
    """A worker answers from within the filter: the call goes no further."""
    return {"match": {"path": PICTURES_CREATE}, "route": {"cluster": ANY_WORKER}}
