"""What the public listener answers by itself when a call breaks a limit or finds nobody, and what it logs of that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.batching.wire import PICTURE_ANSWERED
from shoal.errors import RETRY_AFTER, Code
from shoal.router.browsers import WEB
from shoal.router.key_checks import KEY_ID
from shoal.router.pictures import NO_INTAKE
from shoal.router.refusals import REQUESTED_MODEL
from shoal.router.resources import extension, header, method
from shoal.router.tokens import of_token
from shoal.router.transcoding import JSON_TYPE, ORIGINAL_PATH, PICTURE_TYPE
from shoal.service.identity import HEADER, JWT_CALLER, rate_limit

if TYPE_CHECKING:
    from shoal.runtime.envoy_http2 import Json
    from shoal.service.spec import Router


_ENTRIES, _HEADERS_BYTES = 100, 16 * 1024
"""The most entries and bytes of one call's metadata; more is answered RESOURCE_EXHAUSTED."""
_OTHERS = 20
"""Headers of a call that are HTTP/2's, gRPC's or Envoy's own, at the most."""
_METADATA = "metadata"
_NEITHER = {415: Code.INVALID_ARGUMENT, 405: Code.UNIMPLEMENTED}
"""What callers get who speak neither gRPC nor JSON."""
_AGAIN_SECONDS = "1"
"""After so long, where trying again may help."""
_TEXT = "%LOCAL_REPLY_BODY%"
_TYPES = [
    {"header_filter": {"header": {"name": "content-type", "string_match": {"safe_regex": {"regex": each}}}}}
    for each in (JSON_TYPE, PICTURE_TYPE)
]
_TRANSCODED: Json = {"header_filter": {"header": {"name": ORIGINAL_PATH, "present_match": True}}}
"""The transcoder keeps the path that came, and changes the type."""
_SPEAKS_WEB: Json = {"header_filter": {"header": {"name": WEB, "present_match": True}}}
"""Its content type has become gRPC's own by now."""
_NO_POST: Json = {"header_filter": {"header": {**method("POST"), "invert_match": True}}}
_SPEAKS_JSON: Json = {"or_filter": {"filters": [_TRANSCODED, *_TYPES, _NO_POST]}}
_LOGGED_PATH = 128
"""Bytes of a call's path, which is as long as its caller likes."""


_FOUND_NOBODY = ("UF", "UH", "UC", "URX")


def metadata_limit() -> Json:
    """Refuses in words what HTTP/2 would only reset. It stands before the body, so all that came are headers."""
    request = {"ident_expr": {"name": "request"}}
    size = {"select_expr": {"operand": request, "field": "total_size"}}
    count = _call("size", {"select_expr": {"operand": request, "field": "headers"}})
    too_much = {
        "permissions": [{"any": True}],
        "principals": [{"any": True}],
        "condition": _call("_||_", _over(count, _ENTRIES + _OTHERS), _over(size, _HEADERS_BYTES)),
    }
    kind = "envoy.extensions.filters.http.rbac.v3.RBAC"
    rules = {"action": "DENY", "policies": {_METADATA: too_much}}
    return extension("envoy.filters.http.rbac", kind, rules=rules)


def _over(value: Json, most: int) -> Json:
    return _call("_>_", value, {"const_expr": {"int64_value": most}})


def _call(function: str, *arguments: Json) -> Json:
    """A part of an expression in CEL, parsed (https://github.com/google/cel-spec)."""
    return {"call_expr": {"function": function, "args": list(arguments)}}


def replies(router: Router) -> list[Json]:
    """The router's own refusals, in words, and with a gRPC status where Envoy's choice would mislead."""
    told = [
        *(_token_replies() if router.tokens else ()),
        _reply(_status(408, 504), "the deadline has passed", Code.DEADLINE_EXCEEDED),
        _reply(_flags("UO"), "too many calls in flight; try again later", Code.RESOURCE_EXHAUSTED),
        _reply(_status(429), f"{rate_limit('')} is reached; try again later", Code.RESOURCE_EXHAUSTED),
        _reply(_status(413), f"the request is larger than {router.max_request_bytes} bytes", Code.RESOURCE_EXHAUSTED),
        _reply(
            _status(401),
            f"the API key in the metadata {HEADER} is missing, unknown or revoked; 'shoal keys create' makes one",
            Code.UNAUTHENTICATED,
        ),
        _reply(
            _detailed(f"rbac_access_denied_matched_policy[{_METADATA}]"),
            f"the call's metadata is over {_ENTRIES} entries or {_HEADERS_BYTES // 1024} KiB",
            Code.RESOURCE_EXHAUSTED,
        ),
        _reply(
            _status(403),
            f"this API key may not call model '{REQUESTED_MODEL}'; 'shoal keys list' shows which it may",
            Code.PERMISSION_DENIED,
        ),
        _reply(_flags(*_FOUND_NOBODY), "the service is away; trying again may help", Code.UNAVAILABLE),
        _reply(
            _details("startsWith", NO_INTAKE), "no worker takes pictures in; trying again may help", Code.UNAVAILABLE
        ),
    ]
    # The first that fits answers.
    too_large = {"and_filter": {"filters": [_TYPES[1], _status(413)]}}
    return [
        _as_it_is(),
        _upload_too_large(),
        _json(int(Code.RESOURCE_EXHAUSTED), _TEXT, too_large),
        *(_as_web(reply) for reply in told),
        _web(_status(404)),
        *(_as_json(reply) for reply in told),
        *_other_json(),
        *told,
    ]


def _as_it_is() -> Json:
    """A worker's answer to a call that brings its picture along."""
    return {
        "filter": _detailed(PICTURE_ANSWERED),
        "body_format_override": {"text_format_source": {"inline_string": _TEXT}, "content_type": "application/json"},
    }


def _as_web(reply: Json) -> Json:
    """The same for gRPC-Web: a status alone, in headers."""
    text = reply["body_format_override"]["text_format_source"]["inline_string"]
    told = _web(reply["filter"])
    return {**told, "headers_to_add": [*reply["headers_to_add"], header("grpc-message", text), *told["headers_to_add"]]}


def _web(when: Json) -> Json:
    """Of a reply with a body, or a status of HTTP's that is no success, clients believe no status of gRPC's."""
    return {
        "filter": {"and_filter": {"filters": [_SPEAKS_WEB, when]}},
        "status_code": 200,
        "body_format_override": {"text_format_source": {"inline_string": ""}},
        "headers_to_add": [header("content-type", "application/grpc-web+proto")],
    }


def _token_replies() -> list[Json]:
    """The reasons are Envoy's, and those of ``tokens.lua``; neither quotes a token."""
    limited = {"and_filter": {"filters": [_status(429), of_token()]}}
    refused = _details("startsWith", "jwt_authn_access_denied")
    away = _details("contains", "Jwks_remote_fetch_is_failed")
    ours = _details("startsWith", "lua_response")
    return [
        {
            **_reply(away, "the keys of the token's issuer can't be fetched; trying again may help", Code.UNAVAILABLE),
            "status_code": 503,
        },
        {**_reply(refused, f"the token is refused: {_TEXT}", Code.UNAUTHENTICATED), "status_code": 401},
        _reply({"and_filter": {"filters": [ours, _status(401)]}}, _TEXT, Code.UNAUTHENTICATED),
        _reply({"and_filter": {"filters": [ours, _status(403)]}}, _TEXT, Code.PERMISSION_DENIED),
        _reply(limited, f"{rate_limit(JWT_CALLER)} is reached; try again later", Code.RESOURCE_EXHAUSTED),
    ]


def _upload_too_large() -> Json:
    """The console's uploads have a limit of their own, which their route names."""
    put = {"header_filter": {"header": method("PUT")}}
    return {"filter": {"and_filter": {"filters": [_status(413), put]}}}


def _as_json(reply: Json) -> Json:
    """The same for a caller of JSON, in the form that answers of services have, too."""
    text = reply["body_format_override"]["text_format_source"]["inline_string"]
    (status,) = reply["headers_to_add"]
    again = [header(RETRY_AFTER, _AGAIN_SECONDS)] if "try again" in text or "trying again" in text else []
    told = _json(int(status["header"]["value"]), text, reply["filter"])
    return {**reply, **told, "headers_to_add": [status, *again]}


def _other_json() -> list[Json]:
    """Refusals of routes, which name their status, and what the transcoder has against a body."""
    by_status = [
        _json(int(code), _TEXT, {"grpc_status_filter": {"statuses": [code.name]}})
        for code in (Code.NOT_FOUND, Code.UNIMPLEMENTED, Code.UNAVAILABLE)
    ]
    neither = [_told(int(code), _TEXT, _status(status)) for status, code in _NEITHER.items()]
    return [
        *neither,
        *by_status,
        _json(int(Code.INVALID_ARGUMENT), _TEXT, _status(400)),
        _json(int(Code.NOT_FOUND), _TEXT, _status(404)),
    ]


def _json(code: int, text: str, when: Json) -> Json:
    return _told(code, text, {"and_filter": {"filters": [_SPEAKS_JSON, when]}})


def _told(code: int, text: str, when: Json) -> Json:
    """As ``google.rpc.Status`` is written in JSON."""
    return {
        "filter": when,
        "body_format_override": {"json_format": {"code": code, "message": text, "details": []}},
    }


def _reply(when: Json, text: str, code: Code) -> Json:
    return {
        "filter": when,
        "body_format_override": {"text_format_source": {"inline_string": text}},
        "headers_to_add": [header("grpc-status", str(int(code)))],
    }


def _flags(*flags: str) -> Json:
    return {"response_flag_filter": {"flags": list(flags)}}


def _detailed(details: str) -> Json:
    return _expression(f"response.code_details == '{details}'")


def _details(function: str, text: str) -> Json:
    return _expression(f"response.code_details.{function}('{text}')")


def _expression(expression: str) -> Json:
    """In CEL."""
    kind = "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
    return {"extension_filter": extension("envoy.access_loggers.extension_filters.cel", kind, expression=expression)}


def _status(*codes: int) -> Json:
    filters = [
        {
            "status_code_filter": {
                "comparison": {"value": {"default_value": code, "runtime_key": f"shoal.status.{code}"}}
            }
        }
        for code in codes
    ]
    return filters[0] if len(filters) == 1 else {"or_filter": {"filters": filters}}


def trouble_log() -> Json:
    """A line for each call that found no batcher or worker, without secrets. Other calls cost no line."""
    return {
        "filter": _flags(*_FOUND_NOBODY, "NC"),
        **extension(
            "envoy.access_loggers.stderr",
            "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
            log_format={
                "json_format": {
                    "time": "%START_TIME%",
                    "path": f"%REQ(:PATH):{_LOGGED_PATH}%",
                    "model": REQUESTED_MODEL,
                    "key_id": KEY_ID,
                    "flags": "%RESPONSE_FLAGS%",
                    "upstream": "%UPSTREAM_HOST%",
                    "milliseconds": "%DURATION%",
                }
            },
        ),
    }
