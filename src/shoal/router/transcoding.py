"""Calls as JSON over HTTP, for callers without a stub: Envoy turns them into gRPC before anything else looks at them.

``POST /v1/models/MODEL:classify`` names the model in its path, which becomes the metadata that routes a call;
``POST /shoal.v1.Inference/Classify`` names it in that metadata, as gRPC does. Both go on as the same gRPC call, to the
same route, so key, permissions, rate and deadline are the same ones. gRPC itself passes through untouched.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final

from shoal.batching.wire import MODEL as MODEL_HEADER
from shoal.router.clusters import ANY_WORKER
from shoal.router.json_methods import (
    INFERENCE,
    MODELS_PATH,
    PICTURES,
    PICTURES_PATH,
    UPLOADS,
    UPLOADS_PATH,
    VERBS,
    descriptors,
    picture_descriptors,
)
from shoal.router.pictures import taken_in
from shoal.router.refusals import BODY_LIMIT
from shoal.router.resources import extension, header, method, off, typed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from shoal.runtime.envoy_http2 import Json
    from shoal.service.spec import Service

JSON_TYPE: Final = r"application/json(\s*;.*)?"
"""Content types, as an expression."""
PICTURE_TYPE: Final = (
    r"(image/.*|application/octet-stream|application/x-www-form-urlencoded|multipart/form-data)(\s*;.*)?"
)
"""The second last is what curl says of any body."""
ORIGINAL_PATH: Final = "x-envoy-original-path"
"""Where the transcoder leaves it; Envoy removes what a caller sends by that name."""
_TRANSCODER: Final = "envoy.filters.http.grpc_json_transcoder"
_READ = "shoal.read_of_json"
_HEADERS = "shoal.headers_of_json"
_FOUND = "shoal.path"
_TRANSCODER_TYPE = "envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder"
_READER = "envoy.extensions.filters.http.header_to_metadata.v3.Config"
_WRITER = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
JSON_MARK: Final = f"%DYNAMIC_METADATA({_FOUND}:json)%"
"""In a text of Envoy's: what an identity gets behind it where the message came as JSON, else nothing."""
_LARGEST_REPLY_BYTES: Final = 64 * 2**20
"""A segmentation's class map is the largest; it is held as a whole while it becomes JSON."""


def json_filters() -> list[Json]:
    """They stand before all that asks for the route, which is chosen anew behind them. Only some routes use them."""
    unused = {"disabled": True}
    return [
        extension(_READ, _READER) | unused,
        extension(_HEADERS, _WRITER) | unused,
        {"name": _TRANSCODER, "typed_config": _transcoder(descriptors(), INFERENCE, UPLOADS), **unused},
    ]


def json_routes(max_picture_bytes: int) -> list[Json]:
    """What JSON and pictures come in by. A path's model becomes the metadata, whatever metadata said."""
    verbs = f"{MODELS_PATH}[^/:?]+:({'|'.join(VERBS)})"
    either = rf"{UPLOADS_PATH}|/shoal\.v1\..*"
    as_json = {_TRANSCODER: _transcoder(descriptors(), INFERENCE, UPLOADS)}
    as_picture = {_TRANSCODER: _transcoder(picture_descriptors(), PICTURES)}
    return [
        _route(verbs, JSON_TYPE, as_json, named=True),
        _route(either, JSON_TYPE, as_json),
        _too_large(f"{verbs}|{PICTURES_PATH}", max_picture_bytes),
        _route(verbs, PICTURE_TYPE, as_picture | taken_in(), named=True),
        _route(PICTURES_PATH, PICTURE_TYPE, as_picture | taken_in()),
    ]


def _route(paths: str, types: str, filters: Json, *, named: bool = False) -> Json:
    """``named``: the path has the model's name."""
    cut: Json = {"pattern": {"regex": rf"^{MODELS_PATH}([^/:?]*).*$"}, "substitution": r"\1"}
    model = header(MODEL_HEADER, f"%DYNAMIC_METADATA({_FOUND}:model)%")
    rules = [_rule("json", value="&json=1"), *([_rule("model", regex_value_rewrite=cut)] if named else [])]
    written = {_HEADERS: typed(f"{_WRITER}PerRoute", mutations={"request_mutations": [{"append": model}]})}
    return {
        "match": {"safe_regex": {"regex": paths}, "headers": [method("POST"), _of_type(types)]},
        "route": {"cluster": ANY_WORKER},
        # What the rules find is there for the routes behind.
        "typed_per_filter_config": {
            _READ: typed(_READER, request_rules=rules),
            **filters,
            **(written if named else {}),
        },
    }


def _too_large(paths: str, most: int) -> Json:
    """A picture that says so itself is refused before it comes; of others a worker takes no more."""
    text = f"a picture may have {most} bytes (object_store.max_image_bytes)"
    length = {"name": "content-length", "range_match": {"start": most + 1, "end": 2**63 - 1}}
    return {
        "match": {"safe_regex": {"regex": paths}, "headers": [method("POST"), _of_type(PICTURE_TYPE), length]},
        "direct_response": {"status": 413, "body_format": {"text_format_source": {"inline_string": text}}},
        "typed_per_filter_config": {BODY_LIMIT: off()},
    }


def _of_type(types: str) -> Json:
    return {"name": "content-type", "string_match": {"safe_regex": {"regex": types}}}


def _rule(key: str, **fields: object) -> Json:
    """Of every path: metadata of Envoy's own, which no caller can send."""
    return {"header": ":path", "on_header_present": {"metadata_namespace": _FOUND, "key": key, **fields}}


def _transcoder(descriptor_set: bytes, *services: str) -> Json:
    return typed(
        _TRANSCODER_TYPE,
        proto_descriptor_bin=base64.b64encode(descriptor_set).decode(),
        services=list(services),
        convert_grpc_status=True,
        max_response_body_size=_LARGEST_REPLY_BYTES,
        print_options={"always_print_primitive_fields": True, "preserve_proto_field_names": True},
        request_validation_options={"reject_unknown_query_parameters": True},
    )


def model_list(service: Service, models: Sequence[str], unserved: AbstractSet[str]) -> Json:
    """GET /v1/models: those that may be called, and where; for callers with a key."""
    told = [
        {"name": model, "pool": service.pool_of(model), "state": "unserved" if model in unserved else "served"}
        for model in models
    ]
    return {
        "match": {"path": MODELS_PATH.rstrip("/"), "headers": [method("GET")]},
        "direct_response": {"status": 200, "body": {"inline_string": json.dumps({"models": told})}},
        "response_headers_to_add": [header("content-type", "application/json")],
        "typed_per_filter_config": {BODY_LIMIT: off()},
    }
