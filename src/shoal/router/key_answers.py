"""What the load balancer's listener tells batchers about keys: Envoy checks one when a stream opens, and never again.

Two unary methods without messages, answered by Envoy itself. ``Version`` has a digest of all keys in its trailers, so
a batcher knows for one call that nothing changed. ``Check`` is OK for an identity (``shoal.service.identity``) that a
key has now, and that may call the model named, and for a token's whose issuer is known; else UNAUTHENTICATED.
"""

from __future__ import annotations

import hashlib
import json
import re
from types import MappingProxyType
from typing import TYPE_CHECKING

from shoal.batching.wire import KEYS, KEYS_CHECK, KEYS_VERSION
from shoal.batching.wire import MODEL as MODEL_HEADER
from shoal.router.key_checks import API_KEY_AUTH
from shoal.router.resources import extension, header, typed
from shoal.service.identity import HEADER, JWT_CALLER, Identity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shoal.runtime.envoy_http2 import Json
    from shoal.service.api_keys import Key, KeyRing
    from shoal.service.tokens import TokenIssuer

NO_ISSUERS: Mapping[str, TokenIssuer] = MappingProxyType({})
_AUTH = "envoy.extensions.filters.http.api_key_auth.v3"


def version(keys: KeyRing, tokens: Mapping[str, TokenIssuer] = NO_ISSUERS) -> str:
    """A digest of all that ``Check`` goes by."""
    told = sorted((Identity.of(key).write(), *sorted(key.models)) for key in keys)
    told += sorted((name, each.issuer) for name, each in tokens.items())
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def key_filter() -> Json:
    """The filter in the load balancer's chain, off except on the routes of ``Check``."""
    return {**extension(API_KEY_AUTH, f"{_AUTH}.ApiKeyAuth"), "disabled": True}


def key_routes(models: Sequence[str], keys: KeyRing, tokens: Mapping[str, TokenIssuer] = NO_ISSUERS) -> list[Json]:
    """The routes of both methods. A model that every key may call needs none of its own."""
    limited = {model: allowed for model in models if len(allowed := [k for k in keys if k.allows(model)]) < len(keys)}
    return [
        _ok({"path": KEYS_VERSION, "grpc": {}}, header(KEYS, version(keys, tokens))),
        *_check_tokens(tokens),
        *(_check(allowed, model) for model, allowed in limited.items()),
        _check(keys),
    ]


def _check(keys: Iterable[Key], model: str = "") -> Json:
    named = {"headers": [{"name": MODEL_HEADER, "string_match": {"exact": model}}]} if model else {}
    known = typed(
        f"{_AUTH}.ApiKeyAuthPerRoute",
        credentials=[{"key": Identity.of(key).write(), "client": key.id} for key in keys],
        key_sources=[{"header": HEADER}],
    )
    return {
        **_ok({"path": KEYS_CHECK, "grpc": {}, **named}),
        "typed_per_filter_config": {API_KEY_AUTH: known},
    }


def _check_tokens(tokens: Iterable[str]) -> list[Json]:
    """A token is good until it ends, if its issuer is still one: its claims don't change."""
    if not (names := sorted(tokens)):
        return []
    known = rf"{JWT_CALLER}({'|'.join(map(re.escape, names))}):[^?]*\?.*"
    shown = {"name": HEADER, "string_match": {"safe_regex": {"regex": known}}}
    return [_ok({"path": KEYS_CHECK, "grpc": {}, "headers": [shown]})]


def _ok(match: Json, *headers: Json) -> Json:
    """Trailers alone: a status without a message."""
    told = [header("content-type", "application/grpc"), header("grpc-status", "0"), *headers]
    return {"match": match, "direct_response": {"status": 200}, "response_headers_to_add": told}
