"""``check --triton`` and the control API, against a scripted server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.protobuf import json_format

from shoal.errors import ConfigurationError, NotFound, Unavailable
from shoal.modelstore.compare import compare
from shoal.modelstore.triton import connected
from shoal.triton.steer import steered
from support.scripted_triton import scripted_triton
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.topology import Endpoint


@pytest.fixture
def store(tmp_path: Path) -> Path:
    add_tiny_classifier(tmp_path)
    return tmp_path


async def differences(store: Path, endpoint: Endpoint) -> list[str]:
    async with connected(endpoint) as server:
        return [str(fault) for fault in (await compare(store / "tiny", server)).faults]


async def test_what_is_loaded_has_no_differences(store: Path) -> None:
    async with scripted_triton(store) as (triton, endpoint), connected(endpoint) as server:
        await server.load("tiny")
        config = triton.running["tiny"][0]
        # What a server fills in by itself.
        config.instance_group[0].kind = 1
        config.instance_group[0].name = "tiny_0"
        config.optimization.priority = 1
        assert await differences(store, endpoint) == []


async def test_what_a_worker_loads_for_itself_has_no_differences(store: Path) -> None:
    async with scripted_triton(store) as (triton, endpoint), connected(endpoint) as server:
        await server.load("tiny")
        config = triton.running["tiny"][0]
        ours = steered(config, add_tiny_classifier(store, "other").batching)
        config.CopyFrom(json_format.Parse(ours, type(config)()))
        assert config.dynamic_batching.max_queue_delay_microseconds == 0
        assert await differences(store, endpoint) == []


async def test_each_difference_is_named_with_both_values(store: Path) -> None:
    async with scripted_triton(store) as (triton, endpoint), connected(endpoint) as server:
        await server.load("tiny")
        config = triton.running["tiny"][0]
        config.max_batch_size = 16
        config.input[0].data_type = 11
        config.instance_group[0].count = 1
        config.parameters["shoal.resize"].string_value = "crop"
        del config.parameters["shoal.head"]
        file = store / "tiny" / "config.pbtxt"
        at = f"the Triton at {endpoint} runs with"
        assert await differences(store, endpoint) == [
            f"{file}: max_batch_size: is 4; {at} 16",
            f"{file}: input[0].data_type: is TYPE_UINT8; {at} TYPE_FP32",
            f"{file}: instance_group[0].count: is 2; {at} 1",
            f'{file}: parameters["shoal.head"]: is set; {at} none',
            f"{file}: parameters[\"shoal.resize\"].string_value: is 'stretch'; {at} 'crop'",
        ]


async def test_versions_are_compared(store: Path) -> None:
    async with scripted_triton(store) as (triton, endpoint), connected(endpoint) as server:
        await server.load("tiny")
        add_tiny_classifier(store, version=2)
        (line,) = await differences(store, endpoint)
        assert "is for version 2; the Triton at" in line
        assert line.endswith("serves version 1")
        await server.unload("tiny")
        triton.failed["tiny"] = "out of memory"
        (line,) = await differences(store, endpoint)
        assert line.endswith("doesn't serve it (version 1: out of memory)")


async def test_a_server_that_refuses(store: Path) -> None:
    async with scripted_triton(store) as (triton, endpoint), connected(endpoint) as server:
        with pytest.raises(NotFound, match="unknown model"):
            await server.config("tiny")
        with pytest.raises(ConfigurationError, match="can't load nope: failed to load 'nope'"):
            await server.load("nope")
        triton.explicit = False
        with pytest.raises(ConfigurationError, match="--model-control-mode=explicit"):
            await server.load("tiny")


async def test_a_server_that_is_away(store: Path) -> None:
    async with scripted_triton(store) as (_, endpoint):
        pass
    async with connected(endpoint) as server:
        with pytest.raises(Unavailable, match=f"the Triton at {endpoint} is away"):
            await server.index()
