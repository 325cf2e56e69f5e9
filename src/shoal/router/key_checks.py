"""Who may call, and how often: the API keys as Envoy's filters take them, of a route or of all routes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from shoal.router.resources import extension, seconds, typed
from shoal.service.identity import CLIENT_HEADER, HEADER, Identity

if TYPE_CHECKING:
    from shoal.runtime.envoy_http2 import Json
    from shoal.service.api_keys import Key, KeyRing


API_KEY_AUTH = "envoy.filters.http.api_key_auth"
RATE_LIMIT = "envoy.filters.http.local_ratelimit"
KEY_ID_FILTER = "envoy.filters.http.header_to_metadata"
KEY_ID = "%DYNAMIC_METADATA(shoal:key_id)%"
"""In a text of Envoy's: the id of the caller's key, without the rest of its identity; ``key_id_filter`` cuts it out."""
_NOBODY = "-"  # no key has this id; an empty list would allow everybody
_NO_LIMIT: Json = {"max_tokens": 2**32 - 1, "tokens_per_fill": 2**32 - 1, "fill_interval": "1s"}
MAX_BUCKETS = 10_000
"""Owners of tokens that are counted at once; of more, those that called last."""
_SMALLEST_REFILL_SECONDS = 0.05  # Envoy refuses a shorter interval


class TokenRates(NamedTuple):
    """Limits of callers with a token."""

    counted_under: tuple[Json, ...] = ()
    buckets: tuple[Json, ...] = ()


def permissions(model: str, keys: KeyRing) -> Json:
    """What the route of ``model`` needs if some keys may not call it; else the virtual host's credentials hold."""
    allowed = [_client(key) for key in keys if key.allows(model)]
    if len(allowed) == len(keys):
        return {}
    return {API_KEY_AUTH: credentials(keys, allowed_clients=allowed or [_NOBODY])}


def credentials(keys: KeyRing, **fields: list[str]) -> Json:
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


def rate_limits(keys: KeyRing, tokens: TokenRates) -> Json:
    """What all routes need if a key has a limit: a token bucket for each such key. Callers with a token add theirs."""
    limited = [key for key in keys if key.requests_per_second]
    if not limited and not tokens.buckets:
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
            rate_limits=[
                {"actions": [{"request_headers": {"header_name": CLIENT_HEADER, "descriptor_key": "key"}}]},
                *tokens.counted_under,
            ],
            descriptors=[
                *(
                    {
                        "entries": [{"key": "key", "value": _client(key)}],
                        "token_bucket": token_bucket(key.requests_per_second),
                    }
                    for key in limited
                ),
                *tokens.buckets,
            ],
            **({"max_dynamic_descriptors": MAX_BUCKETS} if tokens.buckets else {}),
        )
    }


def token_bucket(rate: float) -> Json:
    """A second's worth at once, refilled steadily, of ``rate`` calls a second."""
    refill = max(1, math.ceil(rate * _SMALLEST_REFILL_SECONDS))
    return {
        "max_tokens": max(1, math.ceil(rate)),
        "tokens_per_fill": refill,
        "fill_interval": seconds(refill / rate),
    }


def key_id_filter() -> Json:
    """Cuts the id out of the caller's identity, for ``KEY_ID``."""
    rest: Json = {"pattern": {"regex": r"\?.*"}, "substitution": ""}
    found: Json = {"metadata_namespace": "shoal", "key": "key_id", "regex_value_rewrite": rest}
    return extension(
        KEY_ID_FILTER,
        "envoy.extensions.filters.http.header_to_metadata.v3.Config",
        request_rules=[{"header": CLIENT_HEADER, "on_header_present": found}],
    )
