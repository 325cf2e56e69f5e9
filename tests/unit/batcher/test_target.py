from __future__ import annotations

import pytest

from shoal.batcher.target import target_of
from shoal.errors import ConfigurationError
from shoal.runtime.endpoint import Endpoint


@pytest.mark.parametrize(
    ("workers", "target"),
    [
        (["10.0.0.1:9000"], "ipv4:10.0.0.1:9000"),
        (["10.0.0.1:9000", "10.0.0.2:9001"], "ipv4:10.0.0.1:9000,10.0.0.2:9001"),
        (["[::1]:9000", "[::2]:9000"], "ipv6:[::1]:9000,[::2]:9000"),
        (["workers.default.svc:9000"], "dns:///workers.default.svc:9000"),
    ],
)
def test_workers_become_one_target(workers: list[str], target: str) -> None:
    assert target_of([Endpoint.parse(worker) for worker in workers]) == target


@pytest.mark.parametrize(
    "workers",
    [["10.0.0.1:9000", "[::1]:9000"], ["one:9000", "two:9000"], ["one:9000", "10.0.0.1:9000"]],
)
def test_a_mixture_is_refused_by_name(workers: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"one:9000|10\.0\.0\.1:9000"):
        target_of([Endpoint.parse(worker) for worker in workers])
