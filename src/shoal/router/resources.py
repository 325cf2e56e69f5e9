"""The few shapes that every part of Envoy's configuration is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.runtime.envoy_http2 import Json


def typed(kind: str, /, **fields: Any) -> Json:  # any JSON value
    """A message of the protobuf type ``kind``, as an Any."""
    return {"@type": f"type.googleapis.com/{kind}", **fields}


def extension(name: str, kind: str, /, **fields: Any) -> Json:  # any JSON value
    """An extension of Envoy by its ``name``, with a configuration of type ``kind``."""
    return {"name": name, "typed_config": typed(kind, **fields)}


def seconds(value: float) -> str:
    """A protobuf Duration."""
    return f"{value:.9f}".rstrip("0").rstrip(".") + "s"


def address(host: str, port: int) -> Json:
    """A TCP address."""
    return {"socket_address": {"address": host, "port_value": port}}


def pipe(path: Path, **fields: int) -> Json:
    """A Unix socket's address."""
    return {"pipe": {"path": str(path), **fields}}


def header(name: str, value: str, action: str = "OVERWRITE_IF_EXISTS_OR_ADD") -> Json:
    """A header to set."""
    return {"header": {"key": name, "value": value}, "append_action": action}


def method(name: str) -> Json:
    """Matches requests of one method of HTTP."""
    return {"name": ":method", "string_match": {"exact": name}}


def off() -> Json:
    """Turns a filter off, in a route's ``typed_per_filter_config``."""
    return typed("envoy.config.route.v3.FilterConfig", disabled=True)


def config_file(path: str) -> Json:
    """A source of configuration that Envoy reads anew whenever a file is *moved* to ``path``."""
    return {"resource_api_version": "V3", "path_config_source": {"path": path}}
