from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shoal.errors import Unavailable
from shoal.spec import Service, parse
from shoal.triton.client import TritonClient
from shoal.triton.steer import steered
from shoal.worker.sources import StoreSource, TritonSource
from support.fake_triton import FakeTriton, fake_triton
from support.tiny_models import add_tiny_classifier, add_tiny_detector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def store(tmp_path: Path) -> Path:
    add_tiny_classifier(tmp_path, "one")
    add_tiny_detector(tmp_path, "two")
    return tmp_path


@pytest.fixture
async def served(store: Path) -> AsyncIterator[tuple[FakeTriton, TritonClient]]:
    async with fake_triton(store) as (fake, url):
        client = TritonClient(url)
        yield fake, client
        await client.close()


async def test_a_server_tells_what_the_files_say(store: Path, served: tuple[FakeTriton, TritonClient]) -> None:
    _, client = served
    from_files = await StoreSource(store, Service(), "default").offers()
    from_server = await TritonSource(client, Service(), "default").offers()
    assert from_files.keys() == from_server.keys() == {"one", "two"}
    for name, offer in from_server.items():
        assert offer.config == dataclasses.replace(from_files[name].config, path=Path(name, "1", "model.onnx"))


async def test_a_pool_loads_its_own_models_alone(served: tuple[FakeTriton, TritonClient]) -> None:
    fake, client = served
    service = parse("pools: {default: {models: [one]}, other: {models: ['*']}}", "s")
    assert (await TritonSource(client, service, "default").offers()).keys() == {"one"}
    assert fake.models.keys() == {"one"}


async def test_what_was_steered_before_is_offered_as_its_owner_wrote_it(
    store: Path, served: tuple[FakeTriton, TritonClient]
) -> None:
    _, client = served
    first = await TritonSource(client, Service(), "default").offers()
    written = await client.config("one")
    await client.load("one", steered(written, dataclasses.replace(first["one"].config.batching, instance_count=7)))
    again = await TritonSource(client, Service(), "default").offers()
    assert again == first
    assert again["one"].config.batching.max_queue_delay_microseconds == 1000


async def test_changes_are_seen(store: Path, served: tuple[FakeTriton, TritonClient]) -> None:
    fake, client = served
    source = TritonSource(client, Service(), "default")
    before = await source.offers()
    assert await source.offers() == before
    add_tiny_classifier(store, "one", version=2)
    fake.load("one")
    shutil.rmtree(store / "two")
    after = await source.offers()
    assert {name: offer.config.version for name, offer in after.items()} == {"one": 2}


async def test_a_server_that_was_started_again_keeps_its_offers(served: tuple[FakeTriton, TritonClient]) -> None:
    fake, client = served
    source = TritonSource(client, Service(), "default")
    before = await source.offers()
    fake.forget()
    assert await source.offers() == before
    assert not fake.models, "the engine brings them back, with what it told Triton of them"


async def test_one_that_can_not_be_served_leaves_the_others_alone_and_is_told_once(
    store: Path, served: tuple[FakeTriton, TritonClient], caplog: pytest.LogCaptureFixture
) -> None:
    _, client = served
    config = store / "two" / "config.pbtxt"
    config.write_text(config.read_text().replace('"detection"', '"digestion"'))
    source = TritonSource(client, Service(), "default")
    for _ in range(2):
        assert (await source.offers()).keys() == {"one"}
    assert caplog.text.count('model two is not served: two/config.pbtxt: parameters["shoal.task"]') == 1


async def test_a_server_that_loads_nothing_offers_what_it_has(served: tuple[FakeTriton, TritonClient]) -> None:
    fake, client = served
    fake.steered = False
    fake.load("two")
    assert (await TritonSource(client, Service(), "default").offers()).keys() == {"two"}


async def test_the_first_change_is_the_present(served: tuple[FakeTriton, TritonClient]) -> None:
    moments = TritonSource(served[1], Service(), "default").changes()
    await anext(moments)
    await moments.aclose()


async def test_without_a_server_there_are_no_offers() -> None:
    client = TritonClient("127.0.0.1:1")
    with pytest.raises(Unavailable):
        await TritonSource(client, Service(), "default").offers()
    await client.close()
