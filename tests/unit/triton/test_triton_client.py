from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf import json_format

from shoal.engine.triton.shared_memory import Region
from shoal.errors import ConfigurationError, NotFound
from shoal.modelconfig.batching import BatchingSettings
from shoal.triton.client import Away, LoadedVersion, NotSteered, TritonClient
from shoal.triton.steer import original, steered
from support.fake_triton import FakeTriton, fake_triton
from support.tiny_models import COLOURS, add_tiny_classifier, add_tiny_detector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[FakeTriton, TritonClient]]:
    add_tiny_classifier(tmp_path)
    add_tiny_detector(tmp_path)
    async with fake_triton(tmp_path) as (fake, url), TritonClient(url) as client:
        yield fake, client


async def test_models_are_loaded_and_unloaded(served: tuple[FakeTriton, TritonClient]) -> None:
    fake, client = served
    await client.until_ready()
    assert await client.versions() == {"tiny": 0, "tiny-detector": 0}
    await client.load("tiny")
    assert await client.versions() == {"tiny": 1, "tiny-detector": 0}
    assert await client.index() == {"tiny": [LoadedVersion(1, "READY")], "tiny-detector": [LoadedVersion(0, "")]}
    await client.unload("tiny")
    assert not fake.models


async def test_every_version_is_told_with_its_state(served: tuple[FakeTriton, TritonClient], tmp_path: Path) -> None:
    fake, client = served
    for version in (2, 10):
        add_tiny_classifier(tmp_path, version=version)
    config = tmp_path / "tiny" / "config.pbtxt"
    config.write_text(f"{config.read_text()}version_policy {{ latest {{ num_versions: 2 }} }}\n")
    await client.load("tiny")
    fake.failed["tiny-detector"] = "out of memory"
    assert await client.index() == {
        "tiny": [LoadedVersion(2, "READY"), LoadedVersion(10, "READY")],
        "tiny-detector": [LoadedVersion(1, "UNAVAILABLE", "out of memory")],
    }
    assert await client.versions() == {"tiny": 10, "tiny-detector": 0}


async def test_a_refusal_names_the_server_the_model_and_the_reason(served: tuple[FakeTriton, TritonClient]) -> None:
    _, client = served
    with pytest.raises(
        ConfigurationError, match=f"the Triton at {client.url} can't load other: failed to load 'other'"
    ):
        await client.load("other")
    with pytest.raises(NotFound, match=f"the Triton at {client.url} .* of other: .*unknown model: 'other'"):
        await client.config("other")


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE])
async def test_a_model_that_is_not_ready_is_no_server_that_is_away(
    served: tuple[FakeTriton, TritonClient], code: grpc.StatusCode
) -> None:
    fake, client = served
    fake.unknown = code
    with pytest.raises(NotFound, match="unknown model"):
        await client.config("tiny")


async def test_a_server_that_loads_nothing_on_demand_says_how_to_start_it(
    served: tuple[FakeTriton, TritonClient],
) -> None:
    fake, client = served
    fake.steered = False
    for call in (client.load("tiny"), client.unload("tiny")):
        with pytest.raises(NotSteered, match="--model-control-mode=explicit"):
            await call


async def test_labels_come_from_the_server(served: tuple[FakeTriton, TritonClient]) -> None:
    _, client = served
    for model, labels in {"tiny": COLOURS, "tiny-detector": ("bright",)}.items():
        await client.load(model)
        config = await client.config(model)
        assert await client.labels(model, config) == labels
        config.output[0].dims[0] = -1
        assert await client.labels(model, config) == ()


async def test_the_original_of_a_steered_configuration_is_found_again(
    served: tuple[FakeTriton, TritonClient], tmp_path: Path
) -> None:
    _, client = served
    await client.load("tiny")
    written = await client.config("tiny")
    assert original(written) == written
    assert written.dynamic_batching.max_queue_delay_microseconds
    await client.load("tiny", steered(written, add_tiny_classifier(tmp_path / "other").batching))
    loaded = await client.config("tiny")
    assert not loaded.dynamic_batching.max_queue_delay_microseconds
    assert original(loaded) == written


async def test_warm_up_batches_are_no_larger_than_batches(
    served: tuple[FakeTriton, TritonClient], tmp_path: Path
) -> None:
    _, client = served
    await client.load("tiny")
    written = await client.config("tiny")
    for size in (1, 4):
        written.model_warmup.add(name=f"of {size}", batch_size=size)
    alone = add_tiny_classifier(tmp_path / "other", batching=BatchingSettings(max_batch_size=1)).batching
    ours = json_format.Parse(steered(written, alone), type(written)())
    assert [sample.batch_size for sample in ours.model_warmup] == [1, 1]
    assert original(ours) == written


@pytest.mark.parametrize("version", ["", "latest", "-1", "1.5", "\N{SUPERSCRIPT TWO}"])
async def test_versions_that_are_no_numbers(served: tuple[FakeTriton, TritonClient], version: str) -> None:
    fake, client = served
    fake.foreign, fake.foreign_version = {"other": None}, version
    assert (await client.versions())["other"] == 0


async def test_a_model_with_other_inputs_than_one_has_no_labels(served: tuple[FakeTriton, TritonClient]) -> None:
    fake, client = served
    await client.load("tiny")
    config = await client.config("tiny")
    for change in (config.input.add, lambda: config.ClearField("input"), lambda: config.ClearField("output")):
        change()
        assert await client.labels("tiny", config) == ()
    assert not fake.requests


@pytest.mark.parametrize("packed", [None, b"\1", b"\5\0\0\0a:b:c", b"\x0e\0\0\0" + b"1:9999999999:a"])
async def test_labels_that_make_no_sense(served: tuple[FakeTriton, TritonClient], packed: bytes | None) -> None:
    fake, client = served
    await client.load("tiny")
    fake.classification = [] if packed is None else [packed]
    with pytest.raises(ConfigurationError, match=r"the labels of tiny at the Triton at .* make no sense"):
        await client.labels("tiny", await client.config("tiny"))


async def test_a_server_that_is_not_there_is_away() -> None:
    async with TritonClient("127.0.0.1:1") as client:
        assert not await client.live()
        for call in (client.index(), client.load("tiny"), client.unload("tiny"), client.registered()):
            with pytest.raises(Away, match=r"the Triton at 127\.0\.0\.1:1 is away"):
                await call


async def test_memory_that_a_request_uses_is_asked_for_again(served: tuple[FakeTriton, TritonClient]) -> None:
    fake, client = served
    region = Region(8)
    await client.register(region.name, region.size)
    region.close()
    fake.used = {region.name}
    assert await client.unregister([region.name, "unknown"], seconds=0) == [region.name]
    forgetting = asyncio.create_task(client.unregister([region.name]))
    fake.refused.clear()
    await fake.refused.wait()
    fake.used.clear()
    assert await forgetting == []
    assert not fake.regions
