"""Calls as JSON over HTTP, for callers without a stub: Envoy turns them into gRPC before anything else looks at them.

``POST /v1/models/MODEL:classify`` names the model in its path, which becomes the metadata that routes a call;
``POST /shoal.v1.Inference/Classify`` names it in that metadata, as gRPC does. Both go on as the same gRPC call, to the
same route, so key, permissions, rate and deadline are the same ones. gRPC itself passes through untouched.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from shoal.batching.wire import MODEL as MODEL_HEADER
from shoal.router.clusters import ANY_WORKER
from shoal.router.json_methods import (
    INFERENCE,
    MODELS,
    MODELS_PATH,
    PICTURES,
    PICTURES_PATH,
    UPLOADS,
    UPLOADS_PATH,
    V2_PATH,
    VERBS,
    descriptors,
    picture_descriptors,
)
from shoal.router.pictures import taken_in
from shoal.router.refusals import BODY_LIMIT
from shoal.router.resources import extension, header, method, off, typed

if TYPE_CHECKING:
    from shoal.runtime.envoy_http2 import Json

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
_OF_JSON: Final = (INFERENCE, UPLOADS, MODELS)
_ASKED: Final = (f"{MODELS_PATH}[^/:?]+", f"{V2_PATH}[^/:?]+(/ready)?")
"""Paths of questions about one model."""
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
        {"name": _TRANSCODER, "typed_config": _transcoder(descriptors(), *_OF_JSON), **unused},
    ]


def json_routes(max_picture_bytes: int) -> list[Json]:
    """What JSON and pictures come in by. A path's model becomes the metadata, whatever metadata said."""
    verbs = f"{MODELS_PATH}[^/:?]+:({'|'.join(VERBS)})"
    either = rf"{UPLOADS_PATH}|/shoal\.v1\..*"
    as_json = {_TRANSCODER: _transcoder(descriptors(), *_OF_JSON)}
    as_picture = {_TRANSCODER: _transcoder(picture_descriptors(), PICTURES)}
    return [
        _route(verbs, JSON_TYPE, as_json, named=True),
        _route(either, JSON_TYPE, as_json),
        _too_large(f"{verbs}|{PICTURES_PATH}", max_picture_bytes),
        _route(verbs, PICTURE_TYPE, as_picture | taken_in(), named=True),
        _route(PICTURES_PATH, PICTURE_TYPE, as_picture | taken_in()),
        *(_route(paths, None, as_json, verb="GET", named=True) for paths in _ASKED),
    ]


def _route(paths: str, types: str | None, filters: Json, *, verb: str = "POST", named: bool = False) -> Json:
    """``types``: of the body; ``named``: the path has the model's name."""
    cut: Json = {"pattern": {"regex": r"^/v[12]/models/([^/:?]*).*$"}, "substitution": r"\1"}
    model = header(MODEL_HEADER, f"%DYNAMIC_METADATA({_FOUND}:model)%")
    rules = [_rule("json", value="&json=1"), *([_rule("model", regex_value_rewrite=cut)] if named else [])]
    written = {_HEADERS: typed(f"{_WRITER}PerRoute", mutations={"request_mutations": [{"append": model}]})}
    return {
        "match": {"safe_regex": {"regex": paths}, "headers": [method(verb), *([_of_type(types)] if types else [])]},
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
        request_validation_options={"reject_unknown_method": True, "reject_unknown_query_parameters": True},
    )
