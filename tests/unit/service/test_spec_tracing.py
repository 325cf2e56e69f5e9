from __future__ import annotations

import pytest

from shoal.errors import ConfigurationError
from shoal.service.spec import parse


@pytest.mark.parametrize(
    "endpoint",
    ["http://localhost:4317", "http://10.0.0.1:1/", "http://[::1]:4317", "http://a.b_c:65535", "https://a:443"],
)
def test_a_collector_is_read(endpoint: str) -> None:
    found = parse(f"observe: {{tracing: {{otlp_endpoint: '{endpoint}'}}}}", "s").observe.tracing
    assert found
    assert (found.otlp_endpoint, found.sample_ratio) == (endpoint, 0.01)
    assert parse("", "s").observe.tracing is None


@pytest.mark.parametrize(
    ("tracing", "fault"),
    [
        ("{}", "observe.tracing.otlp_endpoint: Field required"),
        *(
            (f"{{otlp_endpoint: '{endpoint}'}}", "observe.tracing.otlp_endpoint: must be http://HOST:PORT")
            for endpoint in ("localhost:4317", "ftp://a:4317", "https://a", "http://a", "http://a:0", "http://a:65536", "http://a:1/v1")
        ),
        ("{otlp_endpoint: 'http://u:p@a:1'}", "observe.tracing.otlp_endpoint: must be http://HOST:PORT"),
        ("{otlp_endpoint: 'http://a:1', sample_ratio: 1.5}", "observe.tracing.sample_ratio: Input should be less than"),
        ("{otlp_endpoint: 'http://a:1', sample_ratio: -0.1}", "observe.tracing.sample_ratio: Input should be greater"),
        ("{otlp_endpoint: 'http://a:1', sample_rate: 1}", "sample_rate: unknown key; did you mean 'sample_ratio'?"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_line_and_key(tracing: str, fault: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse(f"observe:\n  tracing: {tracing}\n", "s")
    assert str(raised.value).startswith("s:2: ")
    assert fault in str(raised.value)
    assert "u:p" not in str(raised.value)
