"""gRPC health, answered by Envoy alone: whoever has no key may ask, so the answer costs nobody else anything.

A call goes through a listener of Envoy's own, on a Unix socket, where Envoy's health check filter looks at what the
load balancer knows of the workers. Envoy can't send a gRPC message by itself, so there the answer is plain HTTP, and
the public listener's bridge filter makes it gRPC.
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/health_check_filter
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/grpc_http1_reverse_bridge_filter
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shoal.router.resources import extension, typed

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.runtime.envoy_http2 import Json

HEALTH = "health"
"""The listener, its cluster and its routes."""
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
V2_READY = "/v2/health/ready"
"""The same question, of the Open Inference Protocol in plain HTTP
(https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md#health)."""
BRIDGE = "envoy.filters.http.grpc_http1_reverse_bridge"

MESSAGE = "application/x-protobuf"
"""The content type of the plain answer."""
_SOME = 1
"""Percent of the workers: of up to a hundred, one is enough. Envoy takes whole ones, and none for 0."""
_SERVING, _NOT_SERVING = "\b\x01", "\b\x02"
"""grpc.health.v1.HealthCheckResponse: field 1, a varint, is 1 or 2."""


def health_socket(admin: Path) -> Path:
    """Beside the admin socket; no longer than that."""
    return admin.with_name("ready.sock")


def bridge_filter() -> Json:
    """The bridge in the public listener's filter chain, off except on routes with ``bridged``."""
    kind = "envoy.extensions.filters.http.grpc_http1_reverse_bridge.v3.FilterConfig"
    return {**extension(BRIDGE, kind, content_type=MESSAGE, withhold_grpc_frames=True), "disabled": True}


def bridged() -> Json:
    """Turns the bridge on, in a route's ``typed_per_filter_config``."""
    kind = "envoy.extensions.filters.http.grpc_http1_reverse_bridge.v3.FilterConfigPerRoute"
    return {BRIDGE: typed(kind)}


def check_filter(workers: str) -> Json:
    """Answers 200 while the cluster ``workers`` has a healthy host and Envoy stays, else 503."""
    return extension(
        "envoy.filters.http.health_check",
        "envoy.extensions.filters.http.health_check.v3.HealthCheck",
        pass_through_mode=False,
        headers=[{"name": ":path", "string_match": {"safe_regex": {"regex": f"{CHECK}|{V2_READY}"}}}],
        cluster_min_healthy_percentages={workers: {"value": _SOME}},
    )


def messages() -> list[Json]:
    """``local_reply_config.mappers`` that make the filter's answers messages, or JSON."""
    return [
        *(_json(status, ready=ready) for status, ready in ((200, True), (503, False))),
        _message(200, _SERVING),
        _message(503, _NOT_SERVING),
    ]


def _json(status: int, *, ready: bool) -> Json:
    asked = {"header_filter": {"header": {"name": ":path", "string_match": {"exact": V2_READY}}}}
    return {
        "filter": {"and_filter": {"filters": [asked, _status(status)]}},
        "body_format_override": {"json_format": {"ready": ready}},
    }


def _message(status: int, body: str) -> Json:
    return {
        "filter": _status(status),
        "status_code": 200,
        "body_format_override": {"text_format_source": {"inline_string": body}, "content_type": MESSAGE},
    }


def _status(status: int) -> Json:
    comparison = {"value": {"default_value": status, "runtime_key": f"shoal.health.{status}"}}
    return {"status_code_filter": {"comparison": comparison}}
