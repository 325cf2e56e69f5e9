"""Callers with a token (JWT) in the place of an API key, in Envoy's words.

``jwt_authn`` checks signature, issuer, audience and times, ``tokens.lua`` makes the caller's identity of the claims,
and the key filter is passed over for such a caller alone. A call with a key is by its key; its token isn't looked at.
"""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urlsplit

from shoal.router.key_checks import TokenRates, token_bucket
from shoal.router.resources import address, config_file, extension, off, seconds, typed
from shoal.router.tls import upstream
from shoal.service.identity import HEADER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoal.router.key_sources import KeySource
    from shoal.runtime.envoy_http2 import Json
    from shoal.service.api_keys import KeyRing
    from shoal.service.spec import Router
    from shoal.service.tokens import TokenIssuer

BEARER: Final = "authorization"
_CHECK: Final = "envoy.filters.http.jwt_authn"
_CHECK_TYPE: Final = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
_IDENTIFY: Final = "shoal.token_identity"
_LUA: Final = "envoy.extensions.filters.http.lua.v3.Lua"
_SCHEMES: Final = ("Bearer ", "bearer ")
_FOUND: Final = "shoal.token"
"""Envoy's own metadata, which no caller can send: whose token ``tokens.lua`` has seen."""
_FETCH_SECONDS: Final = 5.0
_MATCHING: Final = "envoy.extensions.matching"
_THERE: Final[Json] = {"string_match": {"safe_regex": {"regex": ".+"}}}
"""Of a value."""


def token_filters(router: Router, checks_file: str) -> list[Json]:
    """They stand before the key filter. Without issuers there are none."""
    if not router.tokens:
        return []
    found = {"config_source": config_file(checks_file), "type_urls": [f"type.googleapis.com/{_CHECK_TYPE}"]}
    script = resources.files("shoal.router").joinpath("tokens.lua").read_text(encoding="utf-8")
    return [
        {"name": _CHECK, "config_discovery": found},
        extension(_IDENTIFY, _LUA, default_source_code={"inline_string": script}),
    ]


def unless_token(router: Router, key_filter: Json) -> Json:
    """``key_filter``, passed over where a token was verified."""
    if not router.tokens:
        return key_filter
    owner = extension(
        "owner", f"{_MATCHING}.common_inputs.network.v3.DynamicMetadataInput", filter=_FOUND, path=[{"key": "owner"}]
    )
    there = extension(
        "there",
        f"{_MATCHING}.input_matchers.metadata.v3.Metadata",
        value=_THERE,
    )
    skip = extension("skip", "envoy.extensions.filters.common.matcher.action.v3.SkipFilter")
    matcher = {
        "predicate": {"single_predicate": {"input": owner, "custom_match": there}},
        "on_match": {"action": skip},
    }
    return extension(
        key_filter["name"],
        "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
        xds_matcher={"matcher_list": {"matchers": [matcher]}},
        extension_config=key_filter,
    )


def token_checks(router: Router, sources: Mapping[str, KeySource]) -> Json:
    """What ``jwt_authn`` goes by: a file of its own, since a change in the listener would leave open connections out.

    An issuer without a source isn't there yet: its tokens are refused.
    """
    known = {name: issuer for name, issuer in router.tokens.items() if name in sources}
    any_of = {"requires_any": {"requirements": [{"provider_name": name} for name in known]}}
    sent: Json = {"prefix": "/", "headers": [{"name": BEARER, "present_match": True}]}
    keyed: Json = {"prefix": "/", "headers": [{"name": HEADER, "present_match": True}]}
    one = {"provider_name": next(iter(known), "")}
    checks = typed(
        _CHECK_TYPE,
        providers={name: _provider(name, issuer, sources[name]) for name, issuer in known.items()},
        rules=[{"match": keyed}, {"match": sent, "requires": any_of if len(known) > 1 else one}] if known else [],
    )
    return typed("envoy.config.core.v3.TypedExtensionConfig", name=_CHECK, typed_config=checks)


def _provider(name: str, issuer: TokenIssuer, source: KeySource) -> Json:
    return {
        "issuer": issuer.issuer,
        "audiences": issuer.audiences,
        "require_expiration": True,
        "from_headers": [{"name": BEARER, "value_prefix": scheme} for scheme in _SCHEMES],
        "payload_in_metadata": name,
        **({"local_jwks": {"inline_string": source.jwks}} if source.jwks else {"remote_jwks": _remote(name, issuer)}),
    }


def _remote(name: str, issuer: TokenIssuer) -> Json:
    """Fetched beforehand and again, so that no call waits for it, nor for an issuer that is away."""
    return {
        "http_uri": {"uri": issuer.jwks_url, "cluster": _cluster_name(name), "timeout": seconds(_FETCH_SECONDS)},
        "cache_duration": seconds(issuer.refresh_seconds),
        "async_fetch": {"fast_listener": True},
    }


def token_clusters(router: Router, sources: Mapping[str, KeySource]) -> list[Json]:
    """Where key sets are fetched from."""
    return [
        _cluster(_cluster_name(name), issuer.jwks_url, sources[name].authorities)
        for name, issuer in router.tokens.items()
        if issuer.jwks_url is not None and name in sources
    ]


def _cluster_name(name: str) -> str:
    return f"token-keys/{name}"


def _cluster(name: str, url: str, authorities: str) -> Json:
    parts = urlsplit(url)
    host = parts.hostname or ""
    where = address(host, parts.port or (443 if parts.scheme == "https" else 80))
    tls = {"transport_socket": upstream(host, authorities)} if parts.scheme == "https" else {}
    return typed(
        "envoy.config.cluster.v3.Cluster",
        name=name,
        connect_timeout=seconds(_FETCH_SECONDS),
        type="STRICT_DNS",
        dns_lookup_family="V4_PREFERRED",
        load_assignment={
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": where}}]}],
        },
        **tls,
    )


def token_identities(router: Router, keys: KeyRing) -> Json:
    """What all routes need: the issuers, as ``tokens.lua`` wants them."""
    if not router.tokens:
        return {}
    issuers = {name: _meaning(issuer, keys.proof) for name, issuer in router.tokens.items()}
    kind = "envoy.extensions.filters.http.lua.v3.LuaPerRoute"
    return {_IDENTIFY: typed(kind, filter_context={"issuers": issuers})}


def _meaning(issuer: TokenIssuer, proof: str) -> Json:
    told = "&" + urlencode({"sha256": proof or "-", "rps": repr(issuer.requests_per_second)})
    claims = issuer.model_dump(include={"owner", "owner_claim", "models_claim", "priority_claim"}, exclude_none=True)
    return {**claims, "told": told}


def token_rates(router: Router) -> TokenRates:
    """A bucket for each owner of an issuer with a limit."""
    limited = {name: each.requests_per_second for name, each in router.tokens.items() if each.requests_per_second}
    if not limited:
        return TokenRates()
    found = [{"metadata": {"descriptor_key": key, "metadata_key": _metadata(key)}} for key in ("issuer", "owner")]
    buckets = tuple(
        {
            "entries": [{"key": "issuer", "value": name}, {"key": "owner"}],  # any owner, each for itself
            "token_bucket": token_bucket(rate),
        }
        for name, rate in limited.items()
    )
    return TokenRates(({"actions": found},), buckets)


def of_token() -> Json:
    """What an access log's filter has for callers with a token."""
    return {"metadata_filter": {"matcher": {"filter": _FOUND, "path": [{"key": "owner"}], "value": _THERE}}}


def _metadata(key: str) -> Json:
    return {"key": _FOUND, "path": [{"key": key}]}


NO_TOKEN: Final[Json] = {_CHECK: off(), _IDENTIFY: off()}
"""What a route needs whose callers may be anybody."""
