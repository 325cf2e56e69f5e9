"""Envoy's listeners: the public one for clients, the load balancer for batching streams, and one for metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.router import uploads
from shoal.router.browsers import browser_filters
from shoal.router.clusters import ANY_WORKER
from shoal.router.health import HEALTH, bridge_filter, check_filter, messages
from shoal.router.key_answers import key_filter
from shoal.router.key_checks import API_KEY_AUTH, RATE_LIMIT, key_id_filter
from shoal.router.local_replies import metadata_limit, replies, trouble_log
from shoal.router.pictures import intake_filter
from shoal.router.refusals import BODY_LIMIT
from shoal.router.resources import (
    address,
    config_file,
    extension,
    pipe,
    seconds,
    typed,
)
from shoal.router.routes import BALANCER, METRICS, PUBLIC, health_routes, metrics_routes
from shoal.router.tls import transport_socket
from shoal.router.tokens import token_filters, unless_token
from shoal.router.transcoding import json_filters
from shoal.runtime.envoy_http2 import HANG, Json, public_http2, trusted_http2

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.runtime.endpoint import Endpoint
    from shoal.service.spec import ObjectStore, Router

_CONNECTION_BUFFER_BYTES = 1024 * 1024
_MOST_HEADERS, _MOST_HEADERS_KB = 1000, 96
"""More is a reset: nobody keeps it for an answer."""
_IDLE_SECONDS = 60.0
"""A connection without a call for so long is asked to leave."""
_FIRST_BYTES_SECONDS = 3.0
"""What a new connection gets until it says something."""
_AGE_JITTER_PERCENT = 20
"""Clients that came together are asked to connect anew one after the other."""
_NOWHERE: Json = {"address_prefix": "255.255.255.255", "prefix_len": 32}
_STAYS: Json = {"ignore_global_conn_limit": True, "drain_type": "MODIFY_ONLY"}
"""A listener that clients can't crowd out, and that serves on while the public one leaves."""
_MANAGER = "envoy.filters.network.http_connection_manager"
_MANAGER_TYPE = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


def public_listener(
    endpoint: Endpoint,
    router: Router,
    traced: Json,
    *,
    routes_file: str,
    secrets_file: str,
    checks_file: str,
) -> Json:
    """Where clients call: key or token, rate limit and size are checked in this order, then the route is taken."""
    listener = _listener(
        PUBLIC,
        address(*endpoint),
        _connection_limit(PUBLIC, router.max_connections),
        http2=public_http2(),
        rds=_rds(PUBLIC, routes_file),
        common_http_protocol_options={
            **_age(router),
            "idle_timeout": seconds(_IDLE_SECONDS),
            "max_headers_count": _MOST_HEADERS,
        },
        transport_socket=transport_socket(secrets_file) if router.tls else None,
        http_filters=[
            *browser_filters(),
            *json_filters(),
            *token_filters(router, checks_file),
            unless_token(router, extension(API_KEY_AUTH, "envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth")),
            key_id_filter(),
            extension(
                RATE_LIMIT, "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit", stat_prefix="keys"
            ),
            metadata_limit(),
            intake_filter(),
            extension(
                BODY_LIMIT, "envoy.extensions.filters.http.buffer.v3.Buffer", max_request_bytes=router.max_request_bytes
            ),
            bridge_filter(),
            _router_filter(),
        ],
        # A slow or silent caller can't hold a connection's or a stream's memory for long.
        request_headers_timeout="10s",
        stream_idle_timeout=seconds(router.max_timeout_seconds + 1),
        max_request_headers_kb=_MOST_HEADERS_KB,
        local_reply_config={"mappers": replies(router)},
        access_log=[trouble_log()],
        **traced,
    )
    return {**listener, **_first_bytes(router), "traffic_direction": "INBOUND"}  # it leaves before the balancer does


def balancer_listener(endpoint: Endpoint, router: Router, routes_file: str) -> Json:
    """Where batchers open batching streams. Parked streams are idle for as long as there is nothing to do."""
    listener = _listener(
        BALANCER,
        address(*endpoint),
        http2=trusted_http2(connection_keepalive=HANG),  # a batcher that hangs would keep its workers' permits
        rds=_rds(BALANCER, routes_file),
        common_http_protocol_options=_age(router),
        http_filters=[key_filter(), _router_filter()],
        stream_idle_timeout="0s",
    )
    return {**listener, **_STAYS}


def metrics_listener(endpoint: Endpoint) -> Json:
    """Where the admin socket's metrics and readiness can be read, and nothing else of it reached."""
    listener = _listener(METRICS, address(*endpoint), route_config=metrics_routes(), http_filters=[_router_filter()])
    return {**listener, **_STAYS}


def health_listener(socket: Path) -> Json:
    """Where Envoy answers its own public listener's health checks."""
    listener = _listener(
        HEALTH,
        pipe(socket, mode=0o600),
        route_config=health_routes(),
        http_filters=[check_filter(ANY_WORKER), _router_filter()],
        local_reply_config={"mappers": messages()},
    )
    return {**listener, **_STAYS}


def uploads_listener(endpoint: Endpoint, store: ObjectStore) -> Json:
    """Where pictures come in, on their way to the managed store."""
    listener = _listener(
        uploads.UPLOADS,
        address(*endpoint),
        _connection_limit(uploads.UPLOADS, uploads.MAX_CONNECTIONS),
        http2=public_http2(),
        route_config=uploads.routes(store),
        http_filters=[_router_filter()],
        common_http_protocol_options={
            "idle_timeout": seconds(_IDLE_SECONDS),
            "max_stream_duration": seconds(uploads.MOST_SECONDS),
        },
        request_headers_timeout="10s",
    )
    # Its connections and those of calls take no place from each other.
    return {**listener, "ignore_global_conn_limit": True, "traffic_direction": "INBOUND"}


def _first_bytes(router: Router) -> Json:
    """A connection that says nothing is closed soon, and until then takes nobody's place."""
    inspector = "tls_inspector" if router.tls else "http_inspector"
    kind = f"envoy.extensions.filters.listener.{inspector}.v3.{'TlsInspector' if router.tls else 'HttpInspector'}"
    return {
        "listener_filters": [extension(f"envoy.filters.listener.{inspector}", kind)],
        "listener_filters_timeout": seconds(_FIRST_BYTES_SECONDS),
    }


def _connection_limit(name: str, most: int) -> Json:
    """A filter that closes connections over ``most``, counting those that have sent something.

    Silent ones to the public listener are bounded by the bootstrap.
    """
    kind = "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit"
    return extension("envoy.filters.network.connection_limit", kind, stat_prefix=name, max_connections=most)


def _age(router: Router) -> Json:
    """A connection stays with its router, so only a new one finds a router that was added. Streams keep theirs."""
    return {
        "max_connection_duration": seconds(router.max_connection_seconds),
        "max_connection_duration_jitter": {"value": _AGE_JITTER_PERCENT},
    }


def _rds(name: str, routes_file: str) -> Json:
    return {"route_config_name": name, "config_source": config_file(routes_file)}


def _listener(
    name: str,
    where: Json,
    *filters: Json,
    http2: Json | None = None,
    transport_socket: Json | None = None,
    **manager: object,
) -> Json:
    connection_manager = extension(
        _MANAGER,
        _MANAGER_TYPE,
        stat_prefix=name,
        http2_protocol_options=http2 or trusted_http2(),
        # The caller's address is what the socket says, and its x-envoy-* headers steer nothing.
        use_remote_address=True,
        internal_address_config={"cidr_ranges": [_NOWHERE]},
        skip_xff_append=True,
        **{"generate_request_id": False, "server_header_transformation": "PASS_THROUGH", **manager},
    )
    tls = {"transport_socket": transport_socket} if transport_socket else {}
    chain = {"filters": [*filters, connection_manager], **tls}
    return typed(
        "envoy.config.listener.v3.Listener",
        name=name,
        address=where,
        # Two routers must not share a port unnoticed.
        enable_reuse_port=False,
        per_connection_buffer_limit_bytes=_CONNECTION_BUFFER_BYTES,
        filter_chains=[chain],
    )


def _router_filter() -> Json:
    return extension(
        "envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router", suppress_envoy_headers=True
    )
