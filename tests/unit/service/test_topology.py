from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError
from shoal.runtime.endpoint import Endpoint
from shoal.service.topology import SHARED_BATCHER, Topology

if TYPE_CHECKING:
    from pathlib import Path

TOPOLOGY = Topology(
    public=Endpoint("127.0.0.1", 8080),
    balancer=Endpoint("127.0.0.1", 1),
    batchers={SHARED_BATCHER: [Endpoint("127.0.0.1", 3)], "hot": [Endpoint("127.0.0.1", 4)]},
    pools={"default": [Endpoint("127.0.0.1", 5)]},
)


def test_an_endpoint_reads_what_it_prints() -> None:
    assert Endpoint.parse("localhost:80") == Endpoint("localhost", 80)
    assert str(Endpoint.parse("127.0.0.1:0")) == "127.0.0.1:0"
    assert Endpoint.parse("[::1]:80") == Endpoint("::1", 80)
    assert str(Endpoint("::1", 80)) == "[::1]:80"


@pytest.mark.parametrize("text", ["", "80", ":80", "host:", "host:x", "host:65536", "host:-1", "::1:80", "[]:80"])
def test_what_is_no_endpoint_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match="expected HOST:PORT"):
        Endpoint.parse(text)


def test_a_topology_survives_its_file(tmp_path: Path) -> None:
    file = tmp_path / "topology.json"
    TOPOLOGY.save(file)
    assert Topology.load(file) == TOPOLOGY
    assert [path.name for path in tmp_path.iterdir()] == ["topology.json"]


@pytest.mark.parametrize("text", ["", "{}", '{"public": ["a", 1], "surprise": 1}'])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "topology.json"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"topology\.json: not a topology"):
        Topology.load(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"topology\.json: not a topology"):
        Topology.load(tmp_path / "topology.json")


def test_a_model_without_batchers_of_its_own_shares() -> None:
    assert TOPOLOGY.batcher_of("hot") == "hot"
    assert TOPOLOGY.batcher_of("other") == SHARED_BATCHER
