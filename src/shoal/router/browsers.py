"""Calls from pages of other origins: CORS (https://fetch.spec.whatwg.org/#http-cors-protocol) and gRPC-Web."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoal.batching.wire import MODEL as MODEL_HEADER
from shoal.batching.wire import PRIORITY as PRIORITY_HEADER
from shoal.router.clusters import ANY_WORKER
from shoal.router.resources import extension, method, typed
from shoal.router.tokens import BEARER
from shoal.service.identity import HEADER

if TYPE_CHECKING:
    from shoal.runtime.envoy_http2 import Json
    from shoal.service.spec import Router

_CORS: Final = "envoy.filters.http.cors"
_KIND: Final = "envoy.extensions.filters.http.cors.v3"
_SENT: Final = (
    "content-type",
    HEADER,
    BEARER,
    MODEL_HEADER,
    PRIORITY_HEADER,
    "grpc-timeout",
    "traceparent",
    "x-grpc-web",
    "x-user-agent",
)
_SHOWN: Final = ("grpc-status", "grpc-message", "retry-after")
_PREFLIGHT_SECONDS: Final = 600
"""For which a browser need not ask again."""


def browser_filters() -> list[Json]:
    """They stand first: an answer of any other filter has to say whose page may read it."""
    return [
        extension(_CORS, f"{_KIND}.Cors"),
        extension("envoy.filters.http.grpc_web", "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"),
    ]


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
