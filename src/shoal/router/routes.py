"""Envoy's routes: which model goes where, and who may call it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from shoal import __version__
from shoal.batching.wire import COMPUTE, SERVICE
from shoal.errors import Code
from shoal.router import console
from shoal.router.browsers import cross_origin, preflight, web_route
from shoal.router.call_routes import IDENTIFIED, call_routes, deadlined, inner_routes, match
from shoal.router.clusters import ADMIN, ANY_WORKER, pipeline_cluster, pool_cluster
from shoal.router.health import CHECK, HEALTH, MESSAGE, WATCH, bridged
from shoal.router.key_answers import key_routes
from shoal.router.key_checks import (
    API_KEY_AUTH,
    KEY_ID_FILTER,
    RATE_LIMIT,
    credentials,
    rate_limits,
)
from shoal.router.model_list import EMPTY, keyless_routes, model_list, model_routes, server_metadata
from shoal.router.refusals import (
    BODY_LIMIT,
    GRPC_TYPE,
    SPEAKS_GRPC,
    model_missing,
    no_such_method,
    not_grpc,
    refusal,
)
from shoal.router.resources import header, method, off, seconds, typed
from shoal.router.tokens import NO_TOKEN, token_identities, token_rates
from shoal.router.transcoding import json_routes
from shoal.service.identity import CLIENT_HEADER, HEADER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from shoal.router.model_list import Described
    from shoal.runtime.envoy_http2 import Json
    from shoal.service.api_keys import KeyRing
    from shoal.service.spec import Router, Service
    from shoal.service.topology import Topology

PUBLIC = "public"
BALANCER = "balancer"
METRICS = "metrics"

_UPLOADS = "/shoal.v1.Uploads/"
_CREATE = f"{_UPLOADS}Create"
_BATCHING = f"/{SERVICE}/"
_HEALTH = "/grpc.health.v1.Health/"
_REFLECTION = tuple(
    f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")
)
_LONGEST_LIST_BYTES = 4 * 2**20
"""Of all models' names, and where each is."""
_TRACEPARENT_LENGTH = 55
"""Characters of version 00 (https://www.w3.org/TR/trace-context/#traceparent-header); what is longer is cut."""

_NO_KEY: Json = {API_KEY_AUTH: off(), RATE_LIMIT: off(), KEY_ID_FILTER: off(), **NO_TOKEN}
"""What a caller without a key says in the place of an id gets into no log."""
_KEYLESS: Json = {
    "request_headers_to_remove": [CLIENT_HEADER, HEADER],
    "typed_per_filter_config": _NO_KEY,
}
_WATCH_SECONDS = 60.0
"""How long a health Watch may last, which anybody may open; clients open the next one by themselves."""
_REFLECTION_SECONDS = 600.0


def public_routes(
    service: Service,
    topology: Topology,
    keys: KeyRing,
    models: Sequence[str],
    unserved: AbstractSet[str] = frozenset(),
    described: Mapping[str, Described] = EMPTY,
) -> Json:
    """The route configuration of the public listener: what is served, by its exact name, and refusals of the rest.

    The API key is checked on every route but health, the catch-all routes too, so that a caller without a key learns
    nothing.
    """
    return _resource(
        PUBLIC,
        routes=[
            _check(),
            _watch(),
            web_route(),
            *keyless_routes(_KEYLESS),
            *preflight(service.router),
            *console.routes(service, topology, _KEYLESS),
            *json_routes(service.object_store.max_image_bytes),
            model_list(service, models, unserved, described),
            server_metadata(__version__),
            *not_grpc(),
            *call_routes(service.router, topology, keys, models, unserved),
            *model_routes(service, models, unserved),
            _upload(service.router),
            no_such_method(_UPLOADS, "Create"),
            no_such_method(_HEALTH, "Check", "Watch"),
            *(_reflection(path) for path in _REFLECTION),
            refusal({"prefix": "/"}, Code.UNIMPLEMENTED, "no such service; see shoal.v1.Inference"),
        ],
        request_headers_to_add=[_short_traceparent()],
        typed_per_filter_config={
            API_KEY_AUTH: credentials(keys),
            **rate_limits(keys, token_rates(service.router)),
            **token_identities(service.router, keys),
            **cross_origin(service.router),
        },
    )


def balancer_routes(service: Service, topology: Topology, models: Sequence[str], keys: KeyRing) -> Json:
    """The route configuration of the load balancer: a batching stream goes to its model's pool, without a time-out.

    What batchers ask about keys is answered here. What pipelines ask of models goes on as a caller's calls do.
    """
    pooled = [(model, pool_cluster(pool)) for model in models if (pool := service.pool_of(model)) is not None]
    hosted = [*pooled, *((name, pipeline_cluster(name)) for name in models if name in service.pipelines)]
    asked = [model for model, _ in pooled] if service.pipelines else []
    return _resource(
        BALANCER,
        routes=[
            *(
                {"match": match(COMPUTE, model), "route": {"cluster": cluster, "timeout": "0s"}}
                for model, cluster in hosted
            ),
            *model_missing(_BATCHING),
            *(inner_routes(service.router, topology, asked) if asked else []),
            *(model_routes(service, asked, frozenset()) if asked else []),
            *key_routes(models, keys, service.router.tokens),
            refusal({"prefix": "/"}, Code.UNIMPLEMENTED, f"only {SERVICE} is here"),
        ],
    )


def metrics_routes() -> Json:
    """The route configuration of the metrics listener: two paths of the admin socket, to read, and a sign of life.

    ``/ready`` fails while Envoy leaves; ``/alive`` doesn't, so that nobody takes a drain for a fault.
    """
    return _configuration(
        METRICS,
        routes=[
            {"match": {"path": path, "headers": [method("GET")]}, "route": {"cluster": ADMIN, "timeout": "10s"}}
            for path in ("/stats/prometheus", "/ready")
        ]
        + [{"match": {"path": "/alive"}, "direct_response": {"status": 200}}],
    )


def health_routes() -> Json:
    """The route configuration of the listener for health checks, whose filter answers those."""
    return _configuration(HEALTH, routes=[])


def _resource(name: str, *, routes: list[Json], **fields: object) -> Json:
    """A route configuration that Envoy finds in a file."""
    return typed(
        "envoy.config.route.v3.RouteConfiguration",
        max_direct_response_body_size_bytes=_LONGEST_LIST_BYTES,
        **_configuration(name, routes=routes, **fields),
    )


def _configuration(name: str, *, routes: list[Json], **fields: object) -> Json:
    return {"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes, **fields}]}


def _upload(router: Router) -> Json:
    return {
        "match": _exactly(_CREATE),
        "route": deadlined(router, ANY_WORKER),
        **IDENTIFIED,
    }


def _check() -> Json:
    """Needs no key, and goes no further than Envoy. The bridge has the route chosen again, by its own type."""
    types = {"safe_regex": {"regex": rf"{GRPC_TYPE}|{re.escape(MESSAGE)}"}}
    return {
        "match": {"path": CHECK, "headers": [_as_sent(CHECK), {"name": "content-type", "string_match": types}]},
        "route": {"cluster": HEALTH, "timeout": "5s"},
        **_KEYLESS,
        "typed_per_filter_config": {**_NO_KEY, **bridged()},
    }


def _watch() -> Json:
    """Needs no key, and passes no identity on. There is room for few."""
    return {
        "match": _exactly(WATCH),
        "route": {**_conversation(_WATCH_SECONDS), "priority": "HIGH"},
        **_KEYLESS,
    }


def _exactly(path: str) -> Json:
    """A method by its path as it was sent."""
    return {"path": path, "headers": [_as_sent(path), SPEAKS_GRPC]}


def _as_sent(path: str) -> Json:
    """Envoy's own ``path`` looks past a query, of any length."""
    return {"name": ":path", "string_match": {"exact": path}}


def _short_traceparent() -> Json:
    """It is remembered of every call, so its length is bounded here."""
    return header("traceparent", f"%REQ(traceparent):{_TRACEPARENT_LENGTH}%", "OVERWRITE_IF_EXISTS")


def _reflection(path: str) -> Json:
    """A conversation, whose body has no end to bound: for those with a key alone."""
    return {
        "match": _exactly(path),
        "route": _conversation(_REFLECTION_SECONDS),
        "request_headers_to_remove": [CLIENT_HEADER],
        "typed_per_filter_config": {BODY_LIMIT: off()},
    }


def _conversation(most_seconds: float) -> Json:
    """Streams that may be silent, for so long."""
    most = seconds(most_seconds)
    return {
        "cluster": ANY_WORKER,
        "timeout": "0s",
        "idle_timeout": most,
        "max_stream_duration": {"max_stream_duration": most},
    }
