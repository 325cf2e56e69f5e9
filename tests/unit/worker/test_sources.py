from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from shoal.errors import Unavailable
from shoal.modelconfig import pbtxt
from shoal.service.spec import Service, parse
from shoal.triton.client import TritonClient
from shoal.triton.steer import steered
from shoal.worker.store_source import StoreSource
from shoal.worker.triton_source import TritonSource
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


CONFIG = """
max_batch_size: 8 backend: "onnxruntime"
input { name: "image" data_type: TYPE_UINT8 dims: [32, 32, 3] }
output { name: "logits" data_type: TYPE_FP32 dims: [4] label_filename: "labels.txt" }
parameters { key: "shoal.task" value { string_value: "classification" } }
"""
SECOND_INPUT = 'input { name: "size" data_type: TYPE_INT64 dims: [2] }'
FOREIGN = {
    "two inputs": CONFIG + SECOND_INPUT,
    "no input": CONFIG[CONFIG.index("output") :],
    "no output": CONFIG[: CONFIG.index("output")],
    "texts": CONFIG.replace("TYPE_UINT8", "TYPE_STRING"),
    "texts as answers": CONFIG.replace("TYPE_FP32", "TYPE_STRING"),
    "no data type": CONFIG.replace("data_type: TYPE_UINT8 ", ""),
    "no dims": CONFIG.replace("dims: [4]", ""),
    "open dims": CONFIG.replace("dims: [32, 32, 3]", "dims: [-1, -1, 3]"),
    "dims of nothing": CONFIG.replace("dims: [32, 32, 3]", "dims: [0, 0, 3]"),
    "negative dims": CONFIG.replace("dims: [4]", "dims: [-7]"),
    "no batches": CONFIG.replace("max_batch_size: 8", "max_batch_size: 0"),
    "nothing at all": "",
    "not for Shoal": CONFIG[: CONFIG.index("parameters")],
    "an ensemble": 'platform: "ensemble" ensemble_scheduling { step { model_name: "a" } }',
    "a nonsense number": CONFIG + 'parameters { key: "shoal.std" value { string_value: "nan" } }',
    "steered by somebody": CONFIG + 'parameters { key: "shoal.steered_from" value { string_value: "{" } }',
    "Strange Näme\n/../x": CONFIG + SECOND_INPUT,
    "": CONFIG + SECOND_INPUT,
    "no configuration": None,
}


async def test_models_of_somebody_else_are_skipped_and_told_once(
    served: tuple[FakeTriton, TritonClient], caplog: pytest.LogCaptureFixture
) -> None:
    fake, client = served
    for name, text in FOREIGN.items():
        fake.foreign[name] = None if text is None else pbtxt.parse(text)
    source = TritonSource(client, Service(), "default")
    for _ in range(3):
        # One whose answer has a negative size is found out when it is run.
        assert (await source.offers()).keys() - {"negative dims"} == {"one", "two"}
    speaks_of_us = {name for name, text in FOREIGN.items() if text is None or "shoal.task" in text}
    assert source.found.troubles.keys() | {"negative dims"} == speaks_of_us | {"negative dims"}
    assert caplog.text.count("is not served") == len(FOREIGN.keys() - {"negative dims"})
    assert not any(request.model_name in FOREIGN for request in fake.requests), "nobody's model is run to look at it"
    fake.foreign.clear()
    await source.offers()
    assert source.found.troubles == {}


async def test_one_that_the_service_file_names_is_no_foreigner(served: tuple[FakeTriton, TritonClient]) -> None:
    fake, client = served
    fake.foreign = {"other": pbtxt.parse(""), "another": pbtxt.parse("")}
    service = parse("pools: {default: {models: ['*', other]}}", "s")
    source = TritonSource(client, service, "default")
    await source.offers()
    assert list(source.found.troubles) == ["other"]


async def test_labels_that_a_server_doesnt_tell_are_done_without(
    served: tuple[FakeTriton, TritonClient], caplog: pytest.LogCaptureFixture
) -> None:
    fake, client = served
    for _ in range(2):
        fake.troubles.append((grpc.StatusCode.INVALID_ARGUMENT, "no classification here"))
    offers = await TritonSource(client, Service(), "default").offers()
    assert {name: offer.config.labels for name, offer in offers.items()} == {"one": (), "two": ()}
    assert "model one is served without labels: the Triton at" in caplog.text


ODD = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


async def test_no_status_of_the_index_ends_the_look(served: tuple[FakeTriton, TritonClient]) -> None:
    fake, client = served
    moments = TritonSource(client, Service(), "default", look_seconds=0).changes()
    await anext(moments)
    fake.index_troubles.extend((code, "odd") for code in ODD)
    for name in ("one", "two"):
        fake.load(name)
    await anext(moments)
    assert not fake.index_troubles, "it was asked until it told"
    await moments.aclose()


async def test_a_load_that_fails_is_tried_again_when_asked(
    served: tuple[FakeTriton, TritonClient], store: Path
) -> None:
    _, client = served
    file = store / "two" / "1" / "model.onnx"
    good = file.read_bytes()
    file.write_bytes(b"half a mod")
    source = TritonSource(client, Service(), "default")
    assert (await source.offers()).keys() == source.found.troubles.keys() ^ {"one", "two"} == {"one"}
    assert "can't load two: failed to load 'two'" in source.found.troubles["two"]
    file.write_bytes(good)
    assert (await source.offers()).keys() == {"one", "two"}
    assert source.found.troubles == {}


async def test_without_a_server_there_are_no_offers() -> None:
    client = TritonClient("127.0.0.1:1")
    with pytest.raises(Unavailable):
        await TritonSource(client, Service(), "default").offers()
    await client.close()
