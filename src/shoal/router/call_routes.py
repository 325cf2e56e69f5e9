"""The routes that a model leads to: of its calls, and of streams of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.batching.wire import MODEL as MODEL_HEADER
from shoal.batching.wire import PICTURES, STREAM, TIMEOUTS
from shoal.errors import Code
from shoal.router.clusters import batcher_cluster, own_batcher_cluster, own_streams_cluster, streams_cluster
from shoal.router.key_checks import KEY_ID, RATE_LIMIT, permissions
from shoal.router.pictures import create_route, left_alone
from shoal.router.refusals import BODY_LIMIT, REQUESTED_MODEL, SPEAKS_GRPC, model_missing, no_such_method, refusal
from shoal.router.resources import header, off, seconds
from shoal.router.transcoding import JSON_MARK
from shoal.service.identity import CLIENT_HEADER, HEADER
from shoal.service.topology import SHARED_BATCHER

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from shoal.runtime.envoy_http2 import Json
    from shoal.service.api_keys import KeyRing
    from shoal.service.spec import Router
    from shoal.service.topology import Topology

_INFERENCE = "/shoal.v1.Inference/"
_METHODS = ("Classify", "Detect", "Segment", "Analyze")
_STREAM_SECONDS, _SILENT_SECONDS = 3600.0, 600.0
"""How long a stream of calls may last, and be silent. Clients open the next one by themselves."""
_IDENTITY = [
    header(HEADER, f"%REQ({CLIENT_HEADER})%{JSON_MARK}"),
    header(CLIENT_HEADER, KEY_ID),
]
"""The filter has put the identity where the key's id belongs: parts that know nothing of identities read that."""
IDENTIFIED: Json = {"request_headers_to_add": _IDENTITY, "request_headers_to_remove": [TIMEOUTS]}
_RETRIES: Json = {
    "retry_policy": {
        "retry_on": "connect-failure,refused-stream,reset-before-request",
        "num_retries": 3,
        "retry_back_off": {"base_interval": "0.05s", "max_interval": "0.5s"},
    }
}
"""Of a call, or of a stream of calls: only where the batcher can't have seen it."""


def call_routes(
    router: Router, topology: Topology, keys: KeyRing, models: Sequence[str], unserved: AbstractSet[str]
) -> list[Json]:
    """The routes of the inference service, refusals of what it hasn't among them."""
    return [
        no_such_method(_INFERENCE, *_METHODS, streams=STREAM),
        *(_unserved(model, keys) for model in models if model in unserved),
        *(
            route(router, topology.batcher_of(model), model, keys)
            for model in models
            if model not in unserved
            for route in (_stream, _unary)
        ),
        *model_missing(_INFERENCE),
        # Behind the others, which none of them holds up.
        *left_alone([_unserved(model, keys, PICTURES) for model in models if model in unserved]),
        *(_picture(router, topology.batcher_of(model), model, keys) for model in models if model not in unserved),
        create_route(),
        *left_alone(model_missing(PICTURES)),
    ]


def inner_routes(router: Router, topology: Topology, models: Sequence[str]) -> list[Json]:
    """The routes of calls that pipelines make of ``models``, behind the public listener.

    They bring the caller's identity along, whose rate and leave the router looked at when the pipeline was called.
    """
    made = [
        route
        for model in models
        for batcher in (topology.batcher_of(model),)
        for route in (_stream_to_batchers(batcher, model), _call_to_batchers(router, batcher, model))
    ]
    return [*made, *model_missing(_INFERENCE)]


def _picture(router: Router, batcher: str, model: str, keys: KeyRing) -> Json:
    """A call that brings its picture along goes on as the same one with a uuid."""
    unary = _unary(router, batcher, model, keys)
    return {**unary, "match": match(PICTURES, model), "route": {**unary["route"], "prefix_rewrite": _INFERENCE}}


def _unary(router: Router, batcher: str, model: str, keys: KeyRing) -> Json:
    called = _call_to_batchers(router, batcher, model)
    return {**called, **IDENTIFIED, "typed_per_filter_config": permissions(model, keys)}


def _call_to_batchers(router: Router, batcher: str, model: str) -> Json:
    cluster = batcher_cluster(batcher) if batcher == SHARED_BATCHER else own_batcher_cluster(batcher)
    return {"match": match(_INFERENCE, model), "route": deadlined(router, cluster)}


def _stream(router: Router, batcher: str, model: str, keys: KeyRing) -> Json:
    """A stream of calls goes where the calls would. The batcher bounds the calls in it and counts them for the rate."""
    return {
        **_stream_to_batchers(batcher, model),
        "request_headers_to_add": [*_IDENTITY, header(TIMEOUTS, _timeouts(router))],
        "typed_per_filter_config": {**permissions(model, keys), RATE_LIMIT: off(), BODY_LIMIT: off()},
    }


def _stream_to_batchers(batcher: str, model: str) -> Json:
    cluster = streams_cluster(batcher) if batcher == SHARED_BATCHER else own_streams_cluster(batcher)
    named = match(_INFERENCE, model)
    suffix = {"name": ":path", "string_match": {"suffix": STREAM}}
    return {
        "match": {**named, "headers": [*named["headers"], suffix]},
        "route": {
            "cluster": cluster,
            "timeout": "0s",
            "idle_timeout": seconds(_SILENT_SECONDS),
            **_duration(_STREAM_SECONDS, _STREAM_SECONDS),
            **_RETRIES,
        },
    }


def _timeouts(router: Router) -> str:
    """In microseconds: of a call in a stream that names none, and the longest."""
    return ",".join(str(round(each * 1e6)) for each in (router.default_timeout_seconds, router.max_timeout_seconds))


def _unserved(model: str, keys: KeyRing, path: str = _INFERENCE) -> Json:
    """Nobody answers, so nobody has to wait. It may be served soon: trying again may help."""
    text = f"no worker serves model '{REQUESTED_MODEL}', though one should: 'shoal status' and workers' logs say why"
    refused = refusal(match(path, model), Code.UNAVAILABLE, text)
    refused["typed_per_filter_config"] |= permissions(model, keys)
    return refused


def match(path: str, model: str) -> Json:
    """``path`` is a method's, or a service's: which methods that has was looked at before."""
    return {
        ("prefix" if path.endswith("/") else "path"): path,
        "headers": [{"name": MODEL_HEADER, "string_match": {"exact": model}}, SPEAKS_GRPC],
    }


def deadlined(router: Router, cluster: str) -> Json:
    """A unary call's route: the caller's ``grpc-timeout`` binds, up to a limit.

    Envoy writes what binds into the ``grpc-timeout`` that goes on, so the batcher knows the same deadline.
    """
    limits = _duration(router.default_timeout_seconds, router.max_timeout_seconds)
    return {"cluster": cluster, "timeout": "0s", **limits, **_RETRIES}


def _duration(default_seconds: float, most_seconds: float) -> Json:
    """The caller's ``grpc-timeout`` binds, up to ``most_seconds``; without one, ``default_seconds`` do."""
    limits = {
        "max_stream_duration": seconds(default_seconds),
        "grpc_timeout_header_max": seconds(most_seconds),
    }
    return {"max_stream_duration": limits}
