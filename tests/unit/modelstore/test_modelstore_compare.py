"""``check --triton``, against a fake server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.protobuf import json_format

from shoal.modelstore.compare import compare
from shoal.triton.client import TritonClient
from shoal.triton.steer import steered
from support.fake_triton import FakeTriton, fake_triton
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    add_tiny_classifier(tmp_path)
    return tmp_path


@pytest.fixture
async def served(store: Path) -> AsyncIterator[tuple[FakeTriton, TritonClient]]:
    async with fake_triton(store) as (fake, url), TritonClient(url) as client:
        await client.load("tiny")
        yield fake, client


async def differences(store: Path, client: TritonClient) -> list[str]:
    return [str(fault) for fault in (await compare(store / "tiny", client)).faults]


async def test_what_is_loaded_has_no_differences(store: Path, served: tuple[FakeTriton, TritonClient]) -> None:
    fake, client = served
    config = fake.models["tiny"].config
    # What a server fills in by itself.
    config.instance_group[0].kind = 1
    config.instance_group[0].name = "tiny_0"
    config.optimization.priority = 1
    assert await differences(store, client) == []


async def test_what_a_worker_loads_for_itself_has_no_differences(
    store: Path, served: tuple[FakeTriton, TritonClient]
) -> None:
    fake, client = served
    config = fake.models["tiny"].config
    ours = steered(config, add_tiny_classifier(store, "other").batching)
    config.CopyFrom(json_format.Parse(ours, type(config)()))
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    assert await differences(store, client) == []


async def test_each_difference_is_named_with_both_values(store: Path, served: tuple[FakeTriton, TritonClient]) -> None:
    fake, client = served
    config = fake.models["tiny"].config
    config.max_batch_size = 16
    config.input[0].data_type = 11
    config.instance_group[0].count = 1
    config.parameters["shoal.resize"].string_value = "crop"
    del config.parameters["shoal.head"]
    file = store / "tiny" / "config.pbtxt"
    at = f"the Triton at {client.url} runs with"
    assert await differences(store, client) == [
        f"{file}: max_batch_size: is 4; {at} 16",
        f"{file}: input[0].data_type: is TYPE_UINT8; {at} TYPE_FP32",
        f"{file}: instance_group[0].count: is 2; {at} 1",
        f'{file}: parameters["shoal.head"]: is set; {at} none',
        f"{file}: parameters[\"shoal.resize\"].string_value: is 'stretch'; {at} 'crop'",
    ]


async def test_versions_are_compared(store: Path, served: tuple[FakeTriton, TritonClient]) -> None:
    fake, client = served
    add_tiny_classifier(store, version=2)
    (line,) = await differences(store, client)
    assert "is for version 2; the Triton at" in line
    assert line.endswith("serves version 1")
    await client.unload("tiny")
    fake.failed["tiny"] = "out of memory"
    (line,) = await differences(store, client)
    assert line.endswith("doesn't serve it (version 1: out of memory)")
