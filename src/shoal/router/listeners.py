"""Envoy's listeners: the public one for clients, the load balancer for batching streams, and one for metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.errors import Code
from shoal.router.resources import (
    CLIENT_HEADER,
    KEY_HEADER,
    Json,
    address,
    config_file,
    extension,
    header,
    seconds,
    typed,
)
from shoal.router.routes import (
    API_KEY_AUTH,
    BALANCER,
    BODY_LIMIT,
    KEY_ID,
    METRICS,
    PUBLIC,
    RATE_LIMIT,
    REQUESTED_MODEL,
    metrics_routes,
)
from shoal.router.tls import transport_socket

if TYPE_CHECKING:
    from shoal.spec import Router
    from shoal.topology import Endpoint

_CONNECTION_BUFFER_BYTES = 1024 * 1024
_STREAMS_PER_CONNECTION = 100_000
_AGE_JITTER_PERCENT = 20
"""Clients that came together are asked to connect anew one after the other."""
_NOWHERE: Json = {"address_prefix": "255.255.255.255", "prefix_len": 32}
_STAYS: Json = {"ignore_global_conn_limit": True, "drain_type": "MODIFY_ONLY"}
"""A listener that clients can't crowd out, and that serves on while the public one leaves."""
_MANAGER = "envoy.filters.network.http_connection_manager"
_MANAGER_TYPE = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def public_listener(endpoint: Endpoint, router: Router, routes_file: str, secrets_file: str) -> Json:
    """Where clients call: key, rate limit and size are checked in this order, then the route is taken."""
    listener = _listener(
        PUBLIC,
        endpoint,
        rds=_rds(PUBLIC, routes_file),
        common_http_protocol_options=_age(router),
        transport_socket=transport_socket(secrets_file) if router.tls else None,
        http_filters=[
            extension(API_KEY_AUTH, "envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth"),
            _key_id_filter(),
            extension(
                RATE_LIMIT, "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", stat_prefix="keys"
            ),
            extension(
                BODY_LIMIT, "envoy.extensions.filters.http.buffer.v3.Buffer", max_request_bytes=router.max_request_bytes
            ),
            _router_filter(),
        ],
        # A slow or silent caller can't hold a connection's or a stream's memory for long.
        request_headers_timeout="10s",
        stream_idle_timeout=seconds(router.max_timeout_seconds + 1),
        max_request_headers_kb=16,
        local_reply_config={"mappers": _replies(router)},
        access_log=[_trouble_log()],
    )
    return {**listener, "traffic_direction": "INBOUND"}  # it leaves before the balancer does


def balancer_listener(endpoint: Endpoint, router: Router, routes_file: str) -> Json:
    """Where batchers open batching streams. Parked streams are idle for as long as there is nothing to do."""
    listener = _listener(
        BALANCER,
        endpoint,
        rds=_rds(BALANCER, routes_file),
        common_http_protocol_options=_age(router),
        http_filters=[_router_filter()],
        stream_idle_timeout="0s",
    )
    return {**listener, **_STAYS}


def metrics_listener(endpoint: Endpoint) -> Json:
    """Where the admin address's metrics and readiness can be read, and nothing else of it reached."""
    listener = _listener(METRICS, endpoint, route_config=metrics_routes(), http_filters=[_router_filter()])
    return {**listener, **_STAYS}


def _age(router: Router) -> Json:
    """A connection stays with its router, so only a new one finds a router that was added. Streams keep theirs."""
    return {
        "max_connection_duration": seconds(router.max_connection_seconds),
        "max_connection_duration_jitter": {"value": _AGE_JITTER_PERCENT},
    }


def _rds(name: str, routes_file: str) -> Json:
    return {"route_config_name": name, "config_source": config_file(routes_file)}


def _listener(name: str, endpoint: Endpoint, *, transport_socket: Json | None = None, **manager: object) -> Json:
    connection_manager = extension(
        _MANAGER,
        _MANAGER_TYPE,
        stat_prefix=name,
        http2_protocol_options={"max_concurrent_streams": _STREAMS_PER_CONNECTION},
        # The caller's address is what the socket says, and its x-envoy-* headers steer nothing.
        use_remote_address=True,
        internal_address_config={"cidr_ranges": [_NOWHERE]},
        skip_xff_append=True,
        generate_request_id=False,
        server_header_transformation="PASS_THROUGH",
        **manager,
    )
    chain = {"filters": [connection_manager], **({"transport_socket": transport_socket} if transport_socket else {})}
    return typed(
        "envoy.config.listener.v3.Listener",
        name=name,
        address=address(*endpoint),
        # Two routers must not share a port unnoticed.
        enable_reuse_port=False,
        per_connection_buffer_limit_bytes=_CONNECTION_BUFFER_BYTES,
        filter_chains=[chain],
    )


def _key_id_filter() -> Json:
    """Cuts the id out of the caller's identity, for ``KEY_ID``."""
    rest: Json = {"pattern": {"regex": r"\?.*"}, "substitution": ""}
    found: Json = {"metadata_namespace": "shoal", "key": "key_id", "regex_value_rewrite": rest}
    return extension(
        "envoy.filters.http.header_to_metadata",
        "envoy.extensions.filters.http.header_to_metadata.v3.Config",
        request_rules=[{"header": CLIENT_HEADER, "on_header_present": found}],
    )


def _router_filter() -> Json:
    return extension(
        "envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router", suppress_envoy_headers=True
    )


def _replies(router: Router) -> list[Json]:
    """The router's own refusals, in words, and with a gRPC status where Envoy's choice would mislead."""
    return [
        _reply(_status(408, 504), "the deadline has passed", Code.DEADLINE_EXCEEDED),
        _reply(_flags("UO"), "too many calls in flight; try again later", Code.RESOURCE_EXHAUSTED),
        _reply(_status(429), "this API key's rate limit is reached; try again later", Code.RESOURCE_EXHAUSTED),
        _reply(_status(413), f"the request is larger than {router.max_request_bytes} bytes", Code.RESOURCE_EXHAUSTED),
        _reply(
            _status(401),
            f"the API key in the metadata {KEY_HEADER} is missing, unknown or revoked; 'shoal keys create' makes one",
            Code.UNAUTHENTICATED,
        ),
        _reply(
            _status(403),
            f"this API key may not call model '{REQUESTED_MODEL}'; 'shoal keys list' shows which it may",
            Code.PERMISSION_DENIED,
        ),
        _reply(_flags("UF", "UH", "UC", "URX"), "the service is away; trying again may help", Code.UNAVAILABLE),
    ]


def _reply(when: Json, text: str, code: Code) -> Json:
    return {
        "filter": when,
        "body_format_override": {"text_format_source": {"inline_string": text}},
        "headers_to_add": [header("grpc-status", str(int(code)))],
    }


def _flags(*flags: str) -> Json:
    return {"response_flag_filter": {"flags": list(flags)}}


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


def _trouble_log() -> Json:
    """A line for each call that found no batcher or worker, without secrets. Other calls cost no line."""
    return {
        "filter": _flags("UF", "UH", "UC", "URX", "NC"),
        **extension(
            "envoy.access_loggers.stderr",
            "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
            log_format={
                "json_format": {
                    "time": "%START_TIME%",
                    "path": "%REQ(:PATH)%",
                    "model": "%REQ(X-MODEL-NAME)%",
                    "key_id": KEY_ID,
                    "flags": "%RESPONSE_FLAGS%",
                    "upstream": "%UPSTREAM_HOST%",
                    "milliseconds": "%DURATION%",
                }
            },
        ),
    }
