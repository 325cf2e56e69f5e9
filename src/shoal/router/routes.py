"""Envoy's routes: which model goes where, and who may call it. Keys and models live here and nowhere else."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from shoal.batching.wire import COMPUTE, SERVICE
from shoal.batching.wire import MODEL as MODEL_HEADER
from shoal.errors import Code
from shoal.router.clusters import ADMIN, ANY_WORKER, batcher_cluster, own_batcher_cluster, pool_cluster
from shoal.router.health import CHECK, HEALTH, MESSAGE, WATCH, bridged
from shoal.router.resources import header, seconds, typed
from shoal.service.identity import CLIENT_HEADER, HEADER, Identity
from shoal.service.topology import SHARED_BATCHER

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from shoal.runtime.envoy_http2 import Json
    from shoal.service.api_keys import Key, KeyRing
    from shoal.service.spec import Router, Service
    from shoal.service.topology import Topology

API_KEY_AUTH = "envoy.filters.http.api_key_auth"
RATE_LIMIT = "envoy.filters.http.local_ratelimit"
BODY_LIMIT = "envoy.filters.http.buffer"
KEY_ID_FILTER = "envoy.filters.http.header_to_metadata"

KEY_ID = "%DYNAMIC_METADATA(shoal:key_id)%"
"""In a text of Envoy's: the id of the caller's key, without the rest of its identity; see ``listeners``."""

REQUESTED_MODEL = f"%REQ({MODEL_HEADER}):64%"
"""In a text of Envoy's: what the caller named, cut to 64 bytes."""

PUBLIC = "public"
BALANCER = "balancer"
METRICS = "metrics"

_INFERENCE = "/shoal.v1.Inference/"
_METHODS = ("Classify", "Detect", "Segment")
_UPLOADS = "/shoal.v1.Uploads/"
_CREATE = f"{_UPLOADS}Create"
_BATCHING = f"/{SERVICE}/"
_HEALTH = "/grpc.health.v1.Health/"
_REFLECTION = tuple(
    f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")
)
_GRPC_TYPE = r"application/grpc(\+.*)?"
_SPEAK_GRPC = (
    "this port speaks gRPC: POST over HTTP/2 with the content-type application/grpc; JSON, gRPC-Web and plain HTTP "
    "are not taken; see shoal.v1.Inference"
)
_TRACEPARENT_LENGTH = 55
"""Characters of version 00 (https://www.w3.org/TR/trace-context/#traceparent-header); what is longer is cut."""

_NOBODY = "-"  # no key has this id; an empty list would allow everybody
_OFF = typed("envoy.config.route.v3.FilterConfig", disabled=True)
_NO_KEY: Json = {API_KEY_AUTH: _OFF, RATE_LIMIT: _OFF, KEY_ID_FILTER: _OFF}
"""What a caller without a key says in the place of an id gets into no log."""
_KEYLESS: Json = {
    "request_headers_to_remove": [CLIENT_HEADER, HEADER],
    "typed_per_filter_config": _NO_KEY,
}
_WATCH_SECONDS = 60.0
"""How long a health Watch may last, which anybody may open; clients open the next one by themselves."""
_REFLECTION_SECONDS = 600.0
_NO_LIMIT: Json = {"max_tokens": 2**32 - 1, "tokens_per_fill": 2**32 - 1, "fill_interval": "1s"}
_SMALLEST_REFILL_SECONDS = 0.05  # Envoy refuses a shorter interval
_IDENTITY = [
    header(HEADER, f"%REQ({CLIENT_HEADER})%"),
    header(CLIENT_HEADER, KEY_ID),
]
"""The filter has put the identity where the key's id belongs: parts that know nothing of identities read that."""


def public_routes(
    service: Service, topology: Topology, keys: KeyRing, models: Sequence[str], unserved: AbstractSet[str] = frozenset()
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
            *_not_grpc(),
            _no_such_method(_INFERENCE, *_METHODS),
            *(_unserved(model, keys) for model in models if model in unserved),
            *(
                _inference(service.router, topology.batcher_of(model), model, keys)
                for model in models
                if model not in unserved
            ),
            *_model_missing(_INFERENCE),
            _upload(service.router),
            _no_such_method(_UPLOADS, "Create"),
            _no_such_method(_HEALTH, "Check", "Watch"),
            *(_reflection(path) for path in _REFLECTION),
            _refusal({"prefix": "/"}, Code.UNIMPLEMENTED, "no such service; see shoal.v1.Inference"),
        ],
        request_headers_to_add=[_short_traceparent()],
        typed_per_filter_config={API_KEY_AUTH: _credentials(keys), **_rate_limits(keys)},
    )


def balancer_routes(service: Service, models: Sequence[str]) -> Json:
    """The route configuration of the load balancer: a batching stream goes to its model's pool, without a time-out."""
    pooled = [(model, pool) for model in models if (pool := service.pool_of(model)) is not None]
    return _resource(
        BALANCER,
        routes=[
            *(
                {"match": _match(COMPUTE, model), "route": {"cluster": pool_cluster(pool), "timeout": "0s"}}
                for model, pool in pooled
            ),
            *_model_missing(_BATCHING),
            _refusal({"prefix": "/"}, Code.UNIMPLEMENTED, f"only {SERVICE} is here"),
        ],
    )


def metrics_routes() -> Json:
    """The route configuration of the metrics listener: two paths of the admin socket, to read, and a sign of life.

    ``/ready`` fails while Envoy leaves; ``/alive`` doesn't, so that nobody takes a drain for a fault.
    """
    reading = {"name": ":method", "string_match": {"exact": "GET"}}
    return _configuration(
        METRICS,
        routes=[
            {"match": {"path": path, "headers": [reading]}, "route": {"cluster": ADMIN, "timeout": "10s"}}
            for path in ("/stats/prometheus", "/ready")
        ]
        + [{"match": {"path": "/alive"}, "direct_response": {"status": 200}}],
    )


def health_routes() -> Json:
    """The route configuration of the listener for health checks, whose filter answers those."""
    return _configuration(HEALTH, routes=[])


def _resource(name: str, *, routes: list[Json], **fields: object) -> Json:
    """A route configuration that Envoy finds in a file."""
    return typed("envoy.config.route.v3.RouteConfiguration", **_configuration(name, routes=routes, **fields))


def _configuration(name: str, *, routes: list[Json], **fields: object) -> Json:
    return {"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes, **fields}]}


def _inference(router: Router, batcher: str, model: str, keys: KeyRing) -> Json:
    cluster = batcher_cluster(batcher) if batcher == SHARED_BATCHER else own_batcher_cluster(batcher)
    return {
        "match": _match(_INFERENCE, model),
        "route": _deadlined(router, cluster),
        "request_headers_to_add": _IDENTITY,
        "typed_per_filter_config": _permissions(model, keys),
    }


def _unserved(model: str, keys: KeyRing) -> Json:
    """Nobody answers, so nobody has to wait. It may be served soon: trying again may help."""
    text = f"no worker serves model '{REQUESTED_MODEL}', though one should: 'shoal status' and workers' logs say why"
    return {
        **_refusal(_match(_INFERENCE, model), Code.UNAVAILABLE, text),
        "typed_per_filter_config": _permissions(model, keys),
    }


def _upload(router: Router) -> Json:
    return {
        "match": _exactly(_CREATE),
        "route": _deadlined(router, ANY_WORKER),
        "request_headers_to_add": _IDENTITY,
    }


def _check() -> Json:
    """Needs no key, and goes no further than Envoy. The bridge has the route chosen again, by its own type."""
    types = {"safe_regex": {"regex": rf"{_GRPC_TYPE}|{re.escape(MESSAGE)}"}}
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


def _not_grpc() -> list[Json]:
    """Answers for those who speak something else, whatever they ask for."""
    grpc_type = {"safe_regex": {"regex": _GRPC_TYPE}}
    other = {"name": "content-type", "string_match": grpc_type, "invert_match": True}
    return [
        _plain_refusal({**other, "treat_missing_header_as_empty": True}, 415),
        _plain_refusal({"name": ":method", "string_match": {"exact": "POST"}, "invert_match": True}, 405),
    ]


def _plain_refusal(header: Json, status: int) -> Json:
    return {
        "match": {"prefix": "/", "headers": [header]},
        "direct_response": {"status": status, "body": {"inline_string": _SPEAK_GRPC}},
    }


def _no_such_method(service: str, *methods: str) -> Json:
    """The path as it was sent is one of ``methods`` or refused; nothing that only looks like one goes on."""
    served = {"safe_regex": {"regex": f"{re.escape(service)}({'|'.join(methods)})"}}
    match = {"prefix": service, "headers": [{"name": ":path", "string_match": served, "invert_match": True}]}
    text = f"{service.strip('/')} has no such method; it has {', '.join(methods)}"
    return _refusal(match, Code.UNIMPLEMENTED, text)


def _exactly(path: str) -> Json:
    """A method by its path as it was sent."""
    return {"path": path, "headers": [_as_sent(path)], "grpc": {}}


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
        "typed_per_filter_config": {BODY_LIMIT: _OFF},
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


def _match(path: str, model: str) -> Json:
    """``path`` is a method's, or a service's: which methods that has was looked at before."""
    return {
        ("prefix" if path.endswith("/") else "path"): path,
        "headers": [{"name": MODEL_HEADER, "string_match": {"exact": model}}],
        "grpc": {},
    }


def _deadlined(router: Router, cluster: str) -> Json:
    """A unary call's route: the caller's ``grpc-timeout`` binds, up to a limit.

    Envoy writes what binds into the ``grpc-timeout`` that goes on, so the batcher knows the same deadline. A call is
    tried again only where the batcher can't have seen it.
    """
    return {
        "cluster": cluster,
        "timeout": "0s",
        "max_stream_duration": {
            "max_stream_duration": seconds(router.default_timeout_seconds),
            "grpc_timeout_header_max": seconds(router.max_timeout_seconds),
        },
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset-before-request",
            "num_retries": 3,
            "retry_back_off": {"base_interval": "0.05s", "max_interval": "0.5s"},
        },
    }


def _model_missing(prefix: str) -> list[Json]:
    """Answers for a call whose model is not named, or not known."""
    named = {"prefix": prefix, "headers": [{"name": MODEL_HEADER, "present_match": True}]}
    return [
        _refusal(
            named, Code.NOT_FOUND, f"no model '{REQUESTED_MODEL}' is served here; 'shoal status' lists those that are"
        ),
        _refusal({"prefix": prefix}, Code.NOT_FOUND, f"no model named; send its name as the metadata {MODEL_HEADER}"),
    ]


def _refusal(match: Json, code: Code, message: str) -> Json:
    """An answer of the router itself, fit for gRPC and plain HTTP. Without the header, 404 reads as UNIMPLEMENTED.

    ``message`` may quote the call with Envoy's command operators, such as ``REQUESTED_MODEL``.
    """
    return {
        "match": match,
        "direct_response": {"status": 404, "body_format": {"text_format_source": {"inline_string": message}}},
        "response_headers_to_add": [header("grpc-status", str(int(code)))],
    }


def _permissions(model: str, keys: KeyRing) -> Json:
    """A model that every key may call needs nothing of its own; the virtual host's credentials hold."""
    allowed = [_client(key) for key in keys if key.allows(model)]
    if len(allowed) == len(keys):
        return {}
    return {API_KEY_AUTH: _credentials(keys, allowed_clients=allowed or [_NOBODY])}


def _credentials(keys: KeyRing, **fields: list[str]) -> Json:
    """The keys. In a route they act at once, on open connections too; in a listener they would not."""
    return typed(
        "envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuthPerRoute",
        credentials=[{"key": key.key, "client": _client(key)} for key in keys],
        key_sources=[{"header": HEADER}],
        forwarding={"header": CLIENT_HEADER, "hide_credentials": True},
        **fields,
    )


def _client(key: Key) -> str:
    return Identity.of(key).write()


def _rate_limits(keys: KeyRing) -> Json:
    limited = [key for key in keys if key.requests_per_second]
    if not limited:
        return {}
    always = {"default_value": {"numerator": 100}}
    return {
        RATE_LIMIT: typed(
            "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            stat_prefix="keys",
            filter_enabled=always,
            filter_enforced=always,
            rate_limited_as_resource_exhausted=True,
            token_bucket=_NO_LIMIT,  # for the other keys
            always_consume_default_token_bucket=False,
            rate_limits=[{"actions": [{"request_headers": {"header_name": CLIENT_HEADER, "descriptor_key": "key"}}]}],
            descriptors=[
                {"entries": [{"key": "key", "value": _client(key)}], "token_bucket": _token_bucket(key)}
                for key in limited
            ],
        )
    }


def _token_bucket(key: Key) -> Json:
    """A second's worth at once, refilled steadily."""
    rate = key.requests_per_second
    refill = max(1, math.ceil(rate * _SMALLEST_REFILL_SECONDS))
    return {
        "max_tokens": max(1, math.ceil(rate)),
        "tokens_per_fill": refill,
        "fill_interval": seconds(refill / rate),
    }
