from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError, Unavailable
from shoal.triton.client import TritonClient, item_size
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
    async with fake_triton(tmp_path) as (fake, url):
        client = TritonClient(url)
        yield fake, client
        await client.close()


async def test_models_are_loaded_and_unloaded(served: tuple[FakeTriton, TritonClient]) -> None:
    fake, client = served
    await client.until_ready()
    assert await client.index() == {"tiny": 0, "tiny-detector": 0}
    assert await client.load("tiny")
    assert await client.index() == {"tiny": 1, "tiny-detector": 0}
    assert await client.unload("tiny")
    assert not fake.models
    fake.steered = False
    assert not await client.load("tiny")


async def test_what_is_not_there_is_told(served: tuple[FakeTriton, TritonClient]) -> None:
    _, client = served
    with pytest.raises(ConfigurationError, match="model 'other': Triton can't load it: failed to load 'other'"):
        await client.load("other")
    with pytest.raises(ConfigurationError, match="unknown model: 'other'"):
        await client.config("other")


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


async def test_a_server_that_is_not_there_is_away() -> None:
    client = TritonClient("127.0.0.1:1")
    assert not await client.live()
    for call in (client.index(), client.load("tiny"), client.unload("tiny"), client.registered()):
        with pytest.raises(Unavailable, match="is away"):
            await call
    await client.close()


def test_the_size_of_a_number() -> None:
    assert [item_size(name) for name in ("UINT8", "FP32", "INT64", "BOOL")] == [1, 4, 8, 1]
