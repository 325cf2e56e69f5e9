"""Traces of calls, in Envoy's words: the router decides which are traced; its span is the first of the service's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from shoal.batching.wire import MODEL as MODEL_HEADER
from shoal.errors import ConfigurationError
from shoal.router import tls
from shoal.router.key_sources import authorities
from shoal.router.resources import address, extension, typed

if TYPE_CHECKING:
    from collections.abc import Mapping

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
_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_")
"""Beginnings of names, the first first (https://opentelemetry.io/docs/specs/otel/protocol/exporter/)."""


class Export(NamedTuple):
    """What the environment says of the collector, for the router as for the parts whose exporter reads it by itself."""

    headers: tuple[tuple[str, str], ...] = ()
    """They may hold a token."""
    authorities: str = ""
    """Certificates in PEM; empty: there is no TLS."""

    @classmethod
    def of(cls, settings: Tracing | None, environment: Mapping[str, str]) -> Export:
        """Raises ConfigurationError for what can't be read; no header's value is in the text."""
        if settings is None:
            return cls()
        named = {}
        for kind in ("HEADERS", "CERTIFICATE"):
            found = (f"{start}{kind}" for start in _VARIABLES if environment.get(f"{start}{kind}"))
            named[kind] = next(found, f"{_VARIABLES[-1]}{kind}")
        headers = _headers(named["HEADERS"], environment.get(named["HEADERS"], ""))
        if not settings.otlp_endpoint.startswith("https://"):
            return cls(headers)
        return cls(headers, authorities(named["CERTIFICATE"], environment.get(named["CERTIFICATE"])))


NO_EXPORT: Final = Export()


def _headers(variable: str, text: str) -> tuple[tuple[str, str], ...]:
    """As ``name=value,…`` with values as in a URL. Envoy 1.39 refuses a percent sign, and sends two as two."""
    found = []
    for entry in filter(None, (each.strip() for each in text.split(","))):
        name, equals, value = (unquote(part).strip() for part in entry.partition("="))
        if not (name and equals and (name + value).isascii() and (name + value).isprintable()) or " " in name:
            raise ConfigurationError(f"${variable}: expected name=value,name=value with values as in a URL")
        if "%" in value:
            raise ConfigurationError(f"${variable}: {name}: Envoy sends no header with a percent sign")
        found.append((name.lower(), value))
    return tuple(found)


def tracing(settings: Tracing | None, export: Export = NO_EXPORT) -> Json:
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
        grpc_service={
            "envoy_grpc": {"cluster_name": COLLECTOR},
            "timeout": _EXPORT,
            "initial_metadata": [{"key": name, "value": value} for name, value in export.headers],
        },
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


def collector(settings: Tracing | None, export: Export = NO_EXPORT) -> list[Json]:
    """The cluster; nobody need be there."""
    if settings is None:
        return []
    parts = urlsplit(settings.otlp_endpoint)
    where = address(parts.hostname or "", parts.port or 4317)
    secured = {}
    if export.authorities:
        secured = {"transport_socket": tls.upstream(parts.hostname or "", export.authorities, alpn=["h2"])}
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
        **secured,
    )
    return [cluster]
