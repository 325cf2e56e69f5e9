"""Calls as JSON over HTTP, for callers without a stub: Envoy turns them into gRPC before anything else looks at them.

``POST /v1/models/MODEL:classify`` names the model in its path, which becomes the metadata that routes a call;
``POST /shoal.v1.Inference/Classify`` names it in that metadata, as gRPC does. Both go on as the same gRPC call, to the
same route, so key, permissions, rate and deadline are the same ones. gRPC itself passes through untouched.
"""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import TYPE_CHECKING, Final

from google.protobuf import descriptor_pb2, struct_pb2

from shoal.batching.v1 import stream_pb2
from shoal.batching.wire import MODEL as MODEL_HEADER
from shoal.batching.wire import STREAM
from shoal.router.clusters import ANY_WORKER
from shoal.router.refusals import BODY_LIMIT
from shoal.router.resources import extension, header, method, off, typed
from shoal.v1 import inference_pb2, json_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from shoal.runtime.envoy_http2 import Json
    from shoal.service.spec import Service

VERBS: Final = {"classify": "Classify", "detect": "Detect", "segment": "Segment"}
"""At the end of a path, to the method of ``shoal.v1.Inference``."""
JSON_TYPE: Final = r"application/json(\s*;.*)?"
"""Content types, as an expression."""
ORIGINAL_PATH: Final = "x-envoy-original-path"
"""Where the transcoder leaves it; Envoy removes what a caller sends by that name."""
MODELS_PATH: Final = "/v1/models/"
UPLOADS_PATH: Final = "/v1/uploads"
_TRANSCODER: Final = "envoy.filters.http.grpc_json_transcoder"
_INFERENCE, _UPLOADS = "shoal.v1.Inference", "shoal.v1.Uploads"
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
_HTTP_OPTION: Final = 72295728
"""The field of ``google.protobuf.MethodOptions`` that is ``google.api.http``
(https://github.com/googleapis/googleapis/blob/master/google/api/annotations.proto)."""
_WHOLE: Final = b"json"
"""The field of ``JsonMessage`` that takes the whole body."""
_POST, _BODY, _ADDITIONAL = 4, 7, 11
"""Fields of ``google.api.HttpRule``."""


def json_filters() -> list[Json]:
    """They stand before all that asks for the route, which is chosen anew behind them. Only some routes use them."""
    unused = {"disabled": True}
    return [
        extension(_READ, _READER) | unused,
        extension(_HEADERS, _WRITER) | unused,
        {"name": _TRANSCODER, "typed_config": _transcoder(), **unused},
    ]


def json_routes() -> list[Json]:
    """What JSON comes in by. A path's model becomes the metadata, whatever metadata said."""
    post = method("POST")
    as_json = {"name": "content-type", "string_match": {"safe_regex": {"regex": JSON_TYPE}}}
    paths = f"{MODELS_PATH}[^/:?]+:({'|'.join(VERBS)})"
    cut: Json = {"pattern": {"regex": rf"^{MODELS_PATH}([^/:?]*).*$"}, "substitution": r"\1"}
    mark = _rule("json", value="&json=1")
    named = header(MODEL_HEADER, f"%DYNAMIC_METADATA({_FOUND}:model)%")
    return [
        {
            "match": {"safe_regex": {"regex": paths}, "headers": [post, as_json]},
            "route": {"cluster": ANY_WORKER},
            "typed_per_filter_config": {
                **_transcoding(mark, _rule("model", regex_value_rewrite=cut)),
                _HEADERS: typed(f"{_WRITER}PerRoute", mutations={"request_mutations": [{"append": named}]}),
            },
        },
        {
            "match": {"safe_regex": {"regex": rf"{UPLOADS_PATH}|/shoal\.v1\..*"}, "headers": [post, as_json]},
            "route": {"cluster": ANY_WORKER},
            "typed_per_filter_config": _transcoding(mark),
        },
    ]


def _rule(key: str, **fields: object) -> Json:
    """Of every path: metadata of Envoy's own, which no caller can send."""
    return {"header": ":path", "on_header_present": {"metadata_namespace": _FOUND, "key": key, **fields}}


def _transcoding(*rules: Json) -> Json:
    """A route's filters; what ``rules`` find is there for the routes behind."""
    return {_READ: typed(_READER, request_rules=list(rules)), _TRANSCODER: _transcoder()}


def _transcoder() -> Json:
    return typed(
        _TRANSCODER_TYPE,
        proto_descriptor_bin=base64.b64encode(descriptors()).decode(),
        services=[_INFERENCE, _UPLOADS],
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


@cache
def descriptors() -> bytes:
    """A ``FileDescriptorSet`` of the services' unary methods, with the paths that lead to them."""
    files = []
    for module in (struct_pb2, json_pb2, stream_pb2, inference_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        files.append(file)
    files[-1].dependency.append(files[1].name)
    for service in files[-1].service:
        kept = [call for call in service.method if not call.name.endswith(STREAM)]
        del service.method[:]
        service.method.extend(kept)
    inference, uploads = files[-1].service
    for call in inference.method:
        verb = next(verb for verb, name in VERBS.items() if name == call.name)
        _lead(call, f"{MODELS_PATH}{{model_name}}:{verb}", f"/{_INFERENCE}/{call.name}")
    for call in uploads.method:
        _lead(call, UPLOADS_PATH, f"/{_UPLOADS}/{call.name}")
    return descriptor_pb2.FileDescriptorSet(file=files).SerializeToString()


def _lead(call: descriptor_pb2.MethodDescriptorProto, path: str, other: str) -> None:
    """POST to either path is the method: what ``option (google.api.http)`` would say.

    The body as a whole is a field of its message. As the message it would lose what that has no field for: Envoy can't
    be told to refuse it.
    """
    call.input_type = f".{json_pb2.JsonMessage.DESCRIPTOR.full_name}"
    rule, second = (_text(_POST, each.encode()) + _text(_BODY, _WHOLE) for each in (path, other))
    call.options.MergeFromString(_text(_HTTP_OPTION, rule + _text(_ADDITIONAL, second)))


def _text(field: int, value: bytes) -> bytes:
    """A field of wire type 2 (https://protobuf.dev/programming-guides/encoding/)."""
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])
