from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest

from shoal.engine.slots import OVERSHOOT, PREFETCHED
from shoal.engine.triton.engine import TritonEngine
from shoal.engine.triton.shared_memory import DEVICE, Region
from shoal.errors import ConfigurationError, DeadlineExceeded, Internal, Unavailable
from shoal.modelconfig.batching import BatchingSettings
from shoal.service.spec import Service
from shoal.triton.client import AWAY, TritonClient
from shoal.worker.store_source import StoreSource
from support.engine_contract import ALONE, BLUE, GREEN, RED, EngineContract, colours
from support.fake_triton import FakeTriton, fake_triton
from support.tiny_models import add_tiny_classifier, add_tiny_detector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from shoal.engine.triton.engine import TritonModel
    from shoal.modelconfig.model import ModelConfig


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
async def served(store: Path) -> AsyncIterator[tuple[FakeTriton, str]]:
    async with fake_triton(store) as found:
        yield found


@pytest.fixture
def fake(served: tuple[FakeTriton, str]) -> FakeTriton:
    return served[0]


@pytest.fixture
async def engine(served: tuple[FakeTriton, str], store: Path) -> AsyncIterator[TritonEngine]:
    made = TritonEngine(TritonClient(served[1]), StoreSource(store, Service(), "default").describe, exclusive=True)
    yield made
    await made.close()


async def load(engine: TritonEngine, store: Path, batching: BatchingSettings = ALONE) -> TritonModel:
    return await engine.load(add_tiny_classifier(store, batching=batching))


class TestFakeTriton(EngineContract):
    """The common contract, which the real Triton is held to as well."""


async def test_pictures_lie_in_shared_memory_and_nothing_stays_there(
    engine: TritonEngine, fake: FakeTriton, store: Path
) -> None:
    loaded = await load(engine, store)
    before = len(fake.requests)
    for picture in (RED, BLUE):
        assert await colours(loaded, picture) == [picture.index(255)]
    (region,) = fake.regions
    assert (DEVICE / region).stat().st_mode & 0o777 == 0o600
    assert not any(request.raw_input_contents for request in fake.requests)
    assert max(request.ByteSize() for request in fake.requests[before:]) < 200
    await loaded.close()
    assert not fake.regions
    assert not (DEVICE / region).exists()


async def test_large_outputs_lie_in_shared_memory_too(engine: TritonEngine, fake: FakeTriton, store: Path) -> None:
    batching = BatchingSettings(max_batch_size=4)
    loaded = await engine.load(add_tiny_classifier(store, classes=8192, batching=batching))
    slot = await loaded.acquire()
    slot.input[0] = RED
    assert int((await loaded.infer(slot, 1)).outputs["logits"].argmax()) == 0
    regions = set(fake.regions)
    assert len(regions) == 2
    # A call that broke off may still write: not where the next answer is read.
    fake.troubles.append((grpc.StatusCode.UNAVAILABLE, "Socket closed"))
    assert int((await loaded.infer(slot, 1)).outputs["logits"].argmax()) == 0
    assert len(regions & set(fake.regions)) == 1
    loaded.release(slot)
    await loaded.close()
    assert not fake.regions
    assert not any((DEVICE / name).exists() for name in regions)


async def test_memory_that_a_broken_call_still_uses_is_let_go_of_later(
    engine: TritonEngine, fake: FakeTriton, store: Path
) -> None:
    loaded = await engine.load(add_tiny_classifier(store, classes=8192, batching=BatchingSettings(max_batch_size=4)))
    slot = await loaded.acquire()
    await loaded.infer(slot, 1)
    before = set(fake.regions)
    fake.used = before.copy()
    fake.troubles.append((grpc.StatusCode.UNAVAILABLE, "Socket closed"))
    await loaded.infer(slot, 1)  # nothing waits for the broken call
    loaded.release(slot)
    assert before < set(fake.regions)
    assert sum((DEVICE / name).exists() for name in fake.regions) == 2
    closing = asyncio.create_task(loaded.close())
    await fake.refused.wait()
    fake.used.clear()
    await closing
    assert not fake.regions


async def test_memory_of_a_dead_worker_is_let_go_of_and_that_of_another_is_not(
    engine: TritonEngine, fake: FakeTriton, store: Path
) -> None:
    live = Region(8)
    others = {live.name, "somebody-else"}
    for name in ("shoal-slot-of-a-dead-worker", *others):
        fake.regions[name] = np.zeros(1, np.uint8)
    loaded = await load(engine, store)
    await loaded.close()
    assert fake.regions.keys() == others
    live.close()


async def test_a_server_that_refuses_shared_memory_gets_messages_and_that_is_said_once(
    engine: TritonEngine, fake: FakeTriton, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake.shares = False
    loaded = await load(engine, store)
    pictures = [RED, GREEN, BLUE] * 3
    assert await asyncio.gather(*(colours(loaded, picture) for picture in pictures)) == [
        [picture.index(255)] for picture in pictures
    ]
    assert caplog.text.count("tensors go in the messages: the Triton at") == 1
    assert "shared memory from clients is disabled" in caplog.text


async def test_a_server_that_was_started_again_is_told_of_models_and_memory(
    engine: TritonEngine, fake: FakeTriton, store: Path
) -> None:
    loaded = await load(engine, store, BatchingSettings(max_batch_size=1, instance_count=2))
    assert await colours(loaded, RED) == [0]
    fake.forget()
    assert await asyncio.gather(colours(loaded, GREEN), colours(loaded, BLUE)) == [[1], [2]]
    assert fake.regions
    fake.regions.clear()
    assert await colours(loaded, RED) == [0]


async def test_a_server_that_is_away_is_tried_again(engine: TritonEngine, fake: FakeTriton, store: Path) -> None:
    loaded = await load(engine, store)
    fake.troubles.extend([(grpc.StatusCode.UNAVAILABLE, "Socket closed"), (grpc.StatusCode.CANCELLED, "stopping")])
    assert await colours(loaded, GREEN) == [1]
    assert not fake.troubles


async def test_a_server_that_stays_away_makes_a_batch_unavailable(
    engine: TritonEngine, fake: FakeTriton, store: Path
) -> None:
    loaded = await load(engine, store)
    fake.troubles.extend([(grpc.StatusCode.UNAVAILABLE, "Socket closed")] * 100)
    slot = await loaded.acquire()
    with pytest.raises(Unavailable, match="away"):
        await loaded.infer(slot, 1, timeout_microseconds=1_000_000)


async def test_the_remaining_time_goes_along_and_a_slot_comes_back_when_the_server_is_done_with_it(
    engine: TritonEngine, fake: FakeTriton, store: Path
) -> None:
    loaded = await load(engine, store)
    slots = [await loaded.acquire() for _ in range(4)]
    fake.go.clear()
    with pytest.raises(DeadlineExceeded):
        await loaded.infer(slots[0], 1, timeout_microseconds=50_000)
    loaded.release(slots[0])
    waiting = asyncio.create_task(loaded.acquire())
    await asyncio.sleep(0)
    assert not waiting.done()
    fake.go.set()
    assert await waiting is slots[0]
    assert 0 < fake.requests[-1].parameters["timeout"].int64_param <= 50_000


async def test_a_slot_whose_batch_is_still_at_the_server_sends_no_other_meanwhile(
    engine: TritonEngine, fake: FakeTriton, store: Path
) -> None:
    """The late answer would be written over that of the next: large outputs of a slot have one place."""
    loaded = await engine.load(add_tiny_classifier(store, classes=8192, batching=BatchingSettings(max_batch_size=4)))
    slot = await loaded.acquire()
    before = len(fake.requests)
    fake.go.clear()
    try:
        for colour in (RED, BLUE):
            slot.input[0] = colour
            with pytest.raises(DeadlineExceeded):
                await loaded.infer(slot, 1, timeout_microseconds=100_000)
        assert len(fake.requests) == before + 1
        slot.input[0] = GREEN
        third = asyncio.create_task(loaded.infer(slot, 1))
        await asyncio.sleep(0)
        third.cancel()  # its caller left before its turn
        loaded.release(slot)
        assert slot not in loaded._slots._free
    finally:
        fake.go.set()
    await until(lambda: slot in loaded._slots._free)
    assert int((await loaded.infer(await loaded.acquire(), 1)).outputs["logits"].argmax()) == 1
    assert len(fake.requests) == before + 2


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Request timeout expired", DeadlineExceeded),
        (grpc.StatusCode.INTERNAL, "odd", ConfigurationError),
    ],
)
async def test_a_model_that_fails_to_warm_leaves_nothing_at_the_server(
    engine: TritonEngine, fake: FakeTriton, store: Path, code: grpc.StatusCode, reason: str, error: type[Exception]
) -> None:
    fake.troubles.append((code, reason))
    with pytest.raises(error):
        await load(engine, store)
    assert fake.offered
    assert not fake.regions
    assert not fake.models


async def test_a_time_out_of_the_server_is_one_of_the_caller(
    engine: TritonEngine, fake: FakeTriton, store: Path
) -> None:
    loaded = await load(engine, store)
    fake.troubles.append((grpc.StatusCode.UNAVAILABLE, "Request timeout expired"))
    with pytest.raises(DeadlineExceeded):
        await loaded.infer(await loaded.acquire(), 1)


async def test_what_the_server_says_of_a_batch_stays_in_the_log(
    engine: TritonEngine, fake: FakeTriton, store: Path
) -> None:
    loaded = await load(engine, store)
    fake.troubles.append((grpc.StatusCode.INVALID_ARGUMENT, "no such input"))
    with pytest.raises(Internal, match="INVALID_ARGUMENT: no such input"):
        await loaded.infer(await loaded.acquire(), 1)


async def test_the_servers_version_is_told(engine: TritonEngine, fake: FakeTriton, store: Path) -> None:
    loaded = await load(engine, store)
    add_tiny_classifier(store, version=2, batching=ALONE)
    fake.load("tiny")
    assert (await loaded.infer(await loaded.acquire(), 1)).version == 2


async def test_triton_waits_for_nothing_and_minds_what_the_service_file_says(
    engine: TritonEngine, fake: FakeTriton, store: Path
) -> None:
    settings = BatchingSettings(max_batch_size=3, max_queue_delay_microseconds=9000, instance_count=4)
    await load(engine, store, settings)
    told = fake.models["tiny"].config
    assert told.dynamic_batching.max_queue_delay_microseconds == 0
    assert told.dynamic_batching.default_queue_policy.allow_timeout_override
    assert (told.max_batch_size, told.instance_group[0].count) == (3, 4)


async def test_a_model_that_is_gone_is_unloaded_and_a_new_version_of_it_is_not(
    engine: TritonEngine, fake: FakeTriton, store: Path
) -> None:
    first = await load(engine, store)
    second = await engine.load(add_tiny_classifier(store, version=2, batching=ALONE))
    await first.close()
    assert await colours(second, RED) == [0]
    await second.close()
    assert not fake.models


def one_of_two(url: str, store: Path, linger_seconds: float = 3600.0) -> TritonEngine:
    """The engine of one of two processes that share a server."""
    describe = StoreSource(store, Service(), "default").describe
    return TritonEngine(TritonClient(url), describe, exclusive=True, processes=2, linger_seconds=linger_seconds)


async def test_a_model_is_loaded_once_for_all_processes(served: tuple[FakeTriton, str], store: Path) -> None:
    """Triton starts a model anew that it is told to load again: on a GPU that takes seconds, and twice the memory."""
    fake, url = served
    engines = [one_of_two(url, store) for _ in range(3)]
    config = add_tiny_classifier(store, batching=ALONE)
    models = await asyncio.gather(*(engine.load(config) for engine in engines))
    assert fake.loads == ["tiny"]
    assert [await colours(model, RED) for model in models] == [[0]] * 3
    for engine in engines:
        await engine.close()


async def test_a_restarted_server_loads_a_model_once_for_all_processes(
    served: tuple[FakeTriton, str], store: Path
) -> None:
    fake, url = served
    engines = [one_of_two(url, store) for _ in range(3)]
    config = add_tiny_classifier(store, batching=ALONE)
    models = [await engine.load(config) for engine in engines]
    fake.forget()
    assert await asyncio.gather(*(colours(model, RED) for model in models)) == [[0]] * 3
    assert fake.loads == ["tiny"] * 2
    for engine in engines:
        await engine.close()


def _another_version(config: ModelConfig) -> ModelConfig:
    return add_tiny_classifier(config.path.parents[2], version=2, batching=ALONE)


def _other_settings(config: ModelConfig) -> ModelConfig:
    return dataclasses.replace(config, batching=BatchingSettings(max_batch_size=2))


def _another_file(config: ModelConfig) -> ModelConfig:
    os.utime(config.path, ns=(1, 1))
    return config


@pytest.mark.parametrize("change", [_another_version, _other_settings, _another_file])
async def test_what_differs_from_what_is_loaded_is_loaded(
    served: tuple[FakeTriton, str], store: Path, change: Callable[[ModelConfig], ModelConfig]
) -> None:
    fake, url = served
    mine, other = one_of_two(url, store), one_of_two(url, store)
    config = add_tiny_classifier(store, batching=ALONE)
    await mine.load(config)
    await other.load(change(config))
    assert fake.loads == ["tiny", "tiny"]
    for engine in (mine, other):
        await engine.close()


async def test_a_model_that_one_process_gives_up_stays_for_the_other_until_that_had_time_to_finish(
    served: tuple[FakeTriton, str], store: Path
) -> None:
    fake, url = served
    mine, other = one_of_two(url, store), one_of_two(url, store)
    config = add_tiny_classifier(store, batching=ALONE)
    first, second = await mine.load(config), await other.load(config)
    await first.close()
    assert fake.models
    assert await colours(second, RED) == [0]
    for engine in (mine, other):
        await engine.close()
    assert fake.models, "who ends leaves the models to the other"


async def test_the_last_process_s_model_is_unloaded_in_the_end(served: tuple[FakeTriton, str], store: Path) -> None:
    fake, url = served
    engine = one_of_two(url, store, linger_seconds=0)
    loaded = await load(engine, store)
    await loaded.close()
    await until(lambda: not fake.models)
    await engine.close()


async def test_a_model_that_took_the_place_of_one_that_lingers_stays(
    served: tuple[FakeTriton, str], store: Path
) -> None:
    fake, url = served
    engine = one_of_two(url, store, linger_seconds=0)
    first, other = await load(engine, store), await engine.load(add_tiny_detector(store))
    second = await engine.load(add_tiny_classifier(store, version=2, batching=ALONE))
    await first.close()
    await other.close()
    await until(lambda: fake.models.keys() == {"tiny"})  # of the two, the later one is through
    assert await colours(second, RED) == [0]
    await engine.close()


async def test_processes_share_a_model_s_instances_and_the_server_is_told_of_all(
    served: tuple[FakeTriton, str], store: Path
) -> None:
    fake, url = served
    engine = one_of_two(url, store)
    loaded = await load(engine, store, BatchingSettings(max_batch_size=1, instance_count=3))
    assert fake.models["tiny"].config.instance_group[0].count == 3
    slots = [await loaded.acquire() for _ in range(2 + PREFETCHED + OVERSHOOT)]
    one_more = asyncio.ensure_future(loaded.acquire())
    await asyncio.sleep(0)
    assert not one_more.done()
    loaded.release(slots[0])
    await one_more
    await engine.close()


async def test_a_model_that_the_server_can_not_load_is_named(engine: TritonEngine, store: Path) -> None:
    config = add_tiny_classifier(store)
    config.path.write_bytes(b"not a model")
    with pytest.raises(ConfigurationError, match=r"the Triton at .* can't load tiny: failed to load"):
        await engine.load(config)


async def test_a_server_that_can_not_be_steered_serves_what_it_has(
    engine: TritonEngine, fake: FakeTriton, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = add_tiny_classifier(store, batching=ALONE)
    fake.load("tiny")
    fake.steered = False
    assert await colours(await engine.load(config), BLUE) == [2]
    assert "its own queue settings hold at Triton too" in caplog.text


async def test_no_status_of_the_index_ends_the_look_or_means_away(
    fake: FakeTriton, served: tuple[FakeTriton, str], store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    describe = StoreSource(store, Service(), "default").describe
    engine = TritonEngine(TritonClient(served[1]), describe, look_seconds=0)
    loaded = await load(engine, store)
    odd = [code for code in grpc.StatusCode if code not in {grpc.StatusCode.OK, *AWAY}]
    fake.index_troubles.extend((code, "odd") for code in odd)
    fake.index_troubles.extend([(AWAY[0], "away")] * 2)
    changes = engine.availability()
    assert await anext(changes) is False
    assert not fake.index_troubles, "those before said nothing of it"
    assert await anext(changes) is True
    assert await colours(loaded, GREEN) == [1]
    assert caplog.text.count("it is asked again, ever more rarely") == 1
    await changes.aclose()
    await engine.close()


async def test_a_model_that_the_server_lost_and_can_not_load_again_is_told_and_leaves_the_others_alone(
    fake: FakeTriton, served: tuple[FakeTriton, str], store: Path
) -> None:
    describe = StoreSource(store, Service(), "default").describe
    engine = TritonEngine(TritonClient(served[1]), describe, look_seconds=0)
    loaded = await load(engine, store)
    other = await engine.load(add_tiny_classifier(store, "other", batching=ALONE))
    good = loaded.config.path.read_bytes()
    loaded.config.path.write_bytes(b"half a mod")
    fake.forget()
    changes = engine.availability()
    looking = asyncio.ensure_future(anext(changes))
    await until(lambda: bool(loaded.trouble))
    assert "can't load tiny: failed to load 'tiny'" in loaded.trouble
    assert other.trouble == ""
    assert await colours(other, GREEN) == [1]
    assert not looking.done(), "the server is there"
    loaded.config.path.write_bytes(good)
    fake.load("tiny")
    await until(lambda: not loaded.trouble)
    assert await colours(loaded, BLUE) == [2]
    looking.cancel()
    await engine.close()


async def test_memory_that_one_model_can_not_have_is_another_s(
    engine: TritonEngine, fake: FakeTriton, store: Path, caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    """As on a /dev/shm that is nearly full."""
    real = os.posix_fallocate

    def allocate(file: int, offset: int, size: int) -> None:
        if size > 100_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    large = await engine.load(add_tiny_classifier(store, "large", size=256, batching=ALONE))
    small = await load(engine, store)
    assert await colours(large, GREEN) == [1]
    assert await colours(small, BLUE) == [2]
    assert caplog.text.count("no shared memory for batches that need 196,608 bytes of it") == 1
    assert [len(request.raw_input_contents) for request in fake.requests[-2:]] == [1, 0]


async def until(condition: Callable[[], bool]) -> None:
    """Lets others run until it holds."""
    while not condition():  # what happens at the server sets no event
        await asyncio.sleep(0)
