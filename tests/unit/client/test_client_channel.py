from __future__ import annotations

import pytest

from shoal.client.channel import parse_target
from shoal.errors import ConfigurationError


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("localhost:8080", ("localhost:8080", False)),
        ("https://shoal.example", ("shoal.example:443", True)),
        ("grpcs://shoal.example:9443/", ("shoal.example:9443", True)),
        ("http://shoal.example", ("shoal.example:80", False)),
        ("grpc://[::1]:8080", ("[::1]:8080", False)),
        ("dns:///shoal.example:8080", ("dns:///shoal.example:8080", False)),
        ("unix:///run/shoal.sock", ("unix:///run/shoal.sock", False)),
    ],
)
def test_targets(target: str, expected: tuple[str, bool]) -> None:
    assert parse_target(target) == expected


@pytest.mark.parametrize("target", ["", "a b", "https://", "https://a/path", "https://user:word@a", "http://a:port"])
def test_what_is_no_target(target: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_target(target)
    assert "word" not in str(caught.value)
