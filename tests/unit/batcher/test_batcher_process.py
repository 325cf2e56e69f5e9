from __future__ import annotations

from shoal.batcher.core import Orders
from shoal.batcher.process import BatcherOptions, envoy_config
from shoal.runtime.endpoint import Endpoint
from shoal.runtime.envoy_http2 import runtime, trusted_http2, windows


def test_the_batchers_envoy_has_no_admin_address_and_trusts_the_router() -> None:
    config = envoy_config(BatcherOptions(Orders("b", "127.0.0.1:1"), Endpoint("127.0.0.1", 9000)))
    assert "admin" not in config
    assert config["layered_runtime"] == runtime()
    (listener,) = config["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["http2_protocol_options"] == trusted_http2(**windows())
    assert manager["stream_idle_timeout"] == "0s", "Envoy's own is 5 minutes"
    assert manager["common_http_protocol_options"]["max_headers_count"] > 120, "what the router lets through, and adds"
