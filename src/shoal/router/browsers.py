"""Calls from pages of other origins: CORS (https://fetch.spec.whatwg.org/#http-cors-protocol) and gRPC-Web."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoal.batching.wire import AFFINITY as AFFINITY_HEADER
from shoal.batching.wire import MODEL as MODEL_HEADER
from shoal.batching.wire import PRIORITY as PRIORITY_HEADER
from shoal.errors import RETRY_AFTER
from shoal.router.clusters import ANY_WORKER
from shoal.router.resources import extension, method, typed
from shoal.router.tokens import BEARER
from shoal.service.identity import HEADER

if TYPE_CHECKING:
    from shoal.runtime.envoy_http2 import Json
    from shoal.service.spec import Router

_CORS: Final = "envoy.filters.http.cors"
_KIND: Final = "envoy.extensions.filters.http.cors.v3"
WEB: Final = "x-grpc-web"
"""All its clients send this."""
_SENT: Final = (
    "content-type",
    HEADER,
    BEARER,
    MODEL_HEADER,
    PRIORITY_HEADER,
    AFFINITY_HEADER,
    "grpc-timeout",
    "traceparent",
    WEB,
    "x-user-agent",
)
_SHOWN: Final = ("grpc-status", "grpc-message", RETRY_AFTER)
_AGAIN: Final = "envoy.filters.http.set_filter_state"
_AGAIN_KIND: Final = "envoy.extensions.filters.http.set_filter_state.v3.Config"
_PREFLIGHT_SECONDS: Final = 600
"""For which a browser need not ask again."""


def browser_filters() -> list[Json]:
    """They stand first: an answer of any other filter has to say whose page may read it."""
    return [
        extension(_CORS, f"{_KIND}.Cors"),
        extension("envoy.filters.http.grpc_web", "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"),
        {"name": _AGAIN, "typed_config": _again(), "disabled": True},
    ]


def web_route() -> Json:
    """What gRPC-Web has first; its own is chosen once it is gRPC. The CORS filter knows no route that refuses."""
    types = {"name": "content-type", "string_match": {"prefix": "application/grpc-web"}}
    return {
        "match": {"prefix": "/", "headers": [types]},
        "route": {"cluster": ANY_WORKER},
        "typed_per_filter_config": {_AGAIN: _again()},
    }


def _again() -> Json:
    """Has a call's route chosen anew; the state is of no use."""
    value = {"text_format_source": {"inline_string": "1"}}
    marked = {"object_key": "shoal.web", "factory_key": "envoy.string", "format_string": value}
    return typed(_AGAIN_KIND, on_request_headers=[marked], clear_route_cache=True)


def cross_origin(router: Router) -> Json:
    """What all routes need where pages of other origins may call. No cookie is taken, so none is allowed."""
    if not router.cors_origins:
        return {}
    origins = [{"safe_regex": {"regex": ".*"}} if each == "*" else {"exact": each} for each in router.cors_origins]
    policy = typed(
        f"{_KIND}.CorsPolicy",
        allow_origin_string_match=origins,
        allow_methods="GET, POST",
        allow_headers=", ".join(_SENT),
        expose_headers=", ".join(_SHOWN),
        max_age=str(_PREFLIGHT_SECONDS),
    )
    return {_CORS: policy}


def preflight(router: Router) -> list[Json]:
    """The filter answers on this route those origins that may call; others have no key, and are refused for it."""
    if not router.cors_origins:
        return []
    asked = {"name": "access-control-request-method", "present_match": True}
    return [{"match": {"prefix": "/", "headers": [method("OPTIONS"), asked]}, "route": {"cluster": ANY_WORKER}}]
