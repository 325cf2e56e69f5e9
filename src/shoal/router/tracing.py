"""Traces of calls, in Envoy's words: the router decides which are traced; its span is the first of the service's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from shoal.batching.wire import MODEL as MODEL_HEADER
from shoal.router.resources import address, extension, typed

if TYPE_CHECKING:
    from shoal.runtime.envoy_http2 import Json
    from shoal.service.spec import Tracing

COLLECTOR: Final = "collector"
"""The cluster of whoever takes spans."""
_SAMPLERS: Final = "envoy.extensions.tracers.opentelemetry.samplers.v3"
_MILLION: Final = 1_000_000
_EXPORT: Final = "2s"
_MOST_SPANS: Final = 1_000
"""Exports under way, at the most: more are dropped."""
_PATH_BYTES: Final = 128


def tracing(settings: Tracing | None) -> Json:
    """Of the public listener. Who traces already says so in ``traceparent``; of the others a share is traced."""
    if settings is None:
        return {}
    share = {"numerator": round(settings.sample_ratio * _MILLION), "denominator": "MILLION"}
    ratio = extension(
        "envoy.tracers.opentelemetry.samplers.trace_id_ratio_based",
        f"{_SAMPLERS}.TraceIdRatioBasedSamplerConfig",
        sampling_percentage=share,
    )
    provider = extension(
        "envoy.tracers.opentelemetry",
        "envoy.config.trace.v3.OpenTelemetryConfig",
        service_name="shoal-router",
        grpc_service={"envoy_grpc": {"cluster_name": COLLECTOR}, "timeout": _EXPORT},
        sampler=extension(
            "envoy.tracers.opentelemetry.samplers.parent_based",
            f"{_SAMPLERS}.ParentBasedSamplerConfig",
            wrapped_sampler=ratio,
        ),
    )
    key_id = {"kind": {"request": {}}, "metadata_key": {"key": "shoal", "path": [{"key": "key_id"}]}}
    tags = [
        {"tag": "shoal.model", "request_header": {"name": MODEL_HEADER}},
        {"tag": "shoal.key_id", "metadata": key_id},
    ]
    spans = {"provider": provider, "custom_tags": tags, "max_path_tag_length": _PATH_BYTES}
    return {"tracing": spans, "generate_request_id": True}  # a call without an id is never traced


def collector(settings: Tracing | None) -> list[Json]:
    """The cluster; nobody need be there."""
    if settings is None:
        return []
    parts = urlsplit(settings.otlp_endpoint)
    where = address(parts.hostname or "", parts.port or 4317)
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    cluster = typed(
        "envoy.config.cluster.v3.Cluster",
        name=COLLECTOR,
        connect_timeout="1s",
        type="STRICT_DNS",
        dns_lookup_family="V4_PREFERRED",
        load_assignment={
            "cluster_name": COLLECTOR,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": where}}]}],
        },
        circuit_breakers={"thresholds": [{"max_pending_requests": _MOST_SPANS, "max_requests": _MOST_SPANS}]},
        typed_extension_protocol_options={options: typed(options, explicit_http_config={"http2_protocol_options": {}})},
    )
    return [cluster]
