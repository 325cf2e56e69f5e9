"""Routes that Envoy answers itself, in words: there is no such model or method, or the caller speaks no gRPC."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from shoal.batching.wire import MODEL as MODEL_HEADER
from shoal.errors import Code
from shoal.router.resources import header, method, off

if TYPE_CHECKING:
    from shoal.runtime.envoy_http2 import Json


BODY_LIMIT = "envoy.filters.http.buffer"
"""The filter that takes the whole message before a call goes on."""
REQUESTED_MODEL = f"%REQ({MODEL_HEADER}):64%"
"""In a text of Envoy's: what the caller named, cut to 64 bytes."""
GRPC_TYPE = r"application/grpc(-web(-text)?)?(\+.*)?"
"""Content types; gRPC-Web becomes gRPC in a filter, after its route was looked up."""
SPEAKS_GRPC: Json = {"name": "content-type", "string_match": {"safe_regex": {"regex": GRPC_TYPE}}}
_SPEAK = (
    "this port takes POST: gRPC and gRPC-Web (see shoal.v1.Inference), JSON with the content-type application/json at "
    "/v1/models/MODEL:classify, :detect, :segment and /v1/uploads, and a picture in place of it there and at "
    "/v1/pictures; and GET of /v1/models, /v1/models/MODEL and /openapi.json"
)


def not_grpc() -> list[Json]:
    """Answers for those who speak something else, whatever they ask for."""
    asked = {"prefix": "/", "headers": [method("GET")]}
    return [
        refusal(asked, Code.NOT_FOUND, _SPEAK),
        _plain_refusal({**SPEAKS_GRPC, "invert_match": True, "treat_missing_header_as_empty": True}, 415),
        _plain_refusal({**method("POST"), "invert_match": True}, 405),
    ]


def _plain_refusal(matched: Json, status: int) -> Json:
    """``local_replies`` makes JSON of it."""
    return {
        "match": {"prefix": "/", "headers": [matched]},
        "direct_response": {"status": status, "body": {"inline_string": _SPEAK}},
        "typed_per_filter_config": {BODY_LIMIT: off()},
    }


def no_such_method(service: str, *methods: str, streams: str = "") -> Json:
    """The path as it was sent is one of ``methods`` or refused; nothing that only looks like one goes on.

    With ``streams`` behind them they are methods, too. Envoy bounds an expression, so these are told once.
    """
    beside = f"({streams})?" if streams else ""
    served = {"safe_regex": {"regex": f"{re.escape(service)}({'|'.join(methods)}){beside}"}}
    methods += tuple(f"{method}{streams}" for method in methods if streams)
    match = {"prefix": service, "headers": [{"name": ":path", "string_match": served, "invert_match": True}]}
    text = f"{service.strip('/')} has no such method; it has {', '.join(methods)}"
    return refusal(match, Code.UNIMPLEMENTED, text)


def model_missing(prefix: str) -> list[Json]:
    """Answers for a call whose model is not named, or not known."""
    named = {"prefix": prefix, "headers": [{"name": MODEL_HEADER, "present_match": True}]}
    return [
        refusal(
            named, Code.NOT_FOUND, f"no model '{REQUESTED_MODEL}' is served here; 'shoal status' lists those that are"
        ),
        refusal({"prefix": prefix}, Code.NOT_FOUND, f"no model named; send its name as the metadata {MODEL_HEADER}"),
    ]


def refusal(match: Json, code: Code, message: str) -> Json:
    """An answer of the router itself, fit for gRPC and plain HTTP. Without the header, 404 reads as UNIMPLEMENTED.

    It comes at once, so that a stream that is refused need not end first.

    ``message`` may quote the call with Envoy's command operators, such as ``REQUESTED_MODEL``.
    """
    return {
        "match": match,
        "direct_response": {"status": 404, "body_format": {"text_format_source": {"inline_string": message}}},
        # A gRPC call has its message by then; gRPC-Web's has none, since its body is let go (``local_replies``).
        "response_headers_to_add": [
            header("grpc-status", str(int(code))),
            header("grpc-message", message, "ADD_IF_ABSENT"),
        ],
        "typed_per_filter_config": {BODY_LIMIT: off()},
    }
