"""The Triton engine against a real Triton, without the rest of the service."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from shoal.engine.triton.engine import TritonEngine
from shoal.engine.triton.shared_memory import DEVICE, Region
from shoal.engine.triton.sharing import Sharing
from shoal.errors import ConfigurationError, DeadlineExceeded, Internal
from shoal.local.running_triton import running
from shoal.service.spec import Service
from shoal.triton.client import NotSteered, TritonClient
from shoal.worker.store_source import StoreSource
from shoal.worker.triton_source import TritonSource
from support.cable import cable
from support.engine_contract import ALONE, BLUE, RED, EngineContract, colours
from support.tiny_models import add_tiny_classifier, add_tiny_detector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from shoal.modelconfig.model import ModelConfig

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE_SECONDS = 60.0
SLOW = """
import time
_execute = TritonPythonModel.execute
def _slowly(self, requests):
    time.sleep(1.0)
    return _execute(self, requests)
TritonPythonModel.execute = _slowly
"""

DIES = """
import os
_execute = TritonPythonModel.execute
def _dies(self, requests):
    (tensor,) = requests[0].inputs()
    if os.path.exists({once!r}):
        os.remove({once!r})
        os._exit(1)
    if tensor.shape()[0] == 3:
        os._exit(1)
    return _execute(self, requests)
TritonPythonModel.execute = _dies
"""

GATED = """
import os, time
_execute = TritonPythonModel.execute
def _gated(self, requests):
    open({begun!r}, "w").close()
    while not os.path.exists({gate!r}):
        time.sleep(0.01)
    return _execute(self, requests)
TritonPythonModel.execute = _gated
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Path, str]]:
    """A Triton, and its model repository."""
    root = tmp_path_factory.mktemp("triton")
    (root / "models").mkdir()
    async with running(root / "models", root / "logs") as triton:
        yield root / "models", triton.url


@pytest.fixture
def store(served: tuple[Path, str]) -> Path:
    for left in served[0].iterdir():
        shutil.rmtree(left)
    return served[0]


@pytest_asyncio.fixture(loop_scope="module")
async def engine(served: tuple[Path, str], store: Path) -> AsyncIterator[TritonEngine]:
    made = TritonEngine(TritonClient(served[1]), StoreSource(store, Service(), "default").describe, exclusive=True)
    yield made
    await made.close()


def slow_classifier(store: Path) -> ModelConfig:
    """One that takes a second for a batch."""
    config = add_tiny_classifier(store, "slow", runner="python", batching=ALONE)
    with config.path.with_name("model.py").open("a") as file:
        file.write(SLOW)
    return config


class TestTriton(EngineContract):
    """The common contract."""


async def test_slots_are_registered_once_and_gone_in_the_end(engine: TritonEngine, store: Path) -> None:
    loaded = await engine.load(add_tiny_classifier(store, runner="python"))
    await asyncio.gather(*(colours(loaded, RED, BLUE) for _ in range(20)))
    names = await engine.client.registered()
    assert 1 <= len(names) <= 5
    assert all((DEVICE / name).exists() for name in names)
    await loaded.close()
    assert not await engine.client.registered()
    assert not any((DEVICE / name).exists() for name in names)


def content(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


class Apart(Sharing):
    """Of memory that Triton can't open, as in a container of its own."""

    device: Path

    def region(self, size: int, reserved: int | None = None) -> Region | None:
        return Region(size, self.device, reserved=reserved) if self._shares else None


async def test_memory_that_triton_can_not_open_is_done_without(
    served: tuple[Path, str], store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = TritonEngine(TritonClient(served[1]), StoreSource(store, Service(), "default").describe, exclusive=True)
    engine._sharing = apart = Apart(engine.client)
    apart.device = tmp_path
    loaded = await engine.load(add_tiny_classifier(store, runner="python"))
    assert await asyncio.gather(colours(loaded, RED), colours(loaded, BLUE, RED)) == [[0], [2, 0]]
    assert caplog.text.count("tensors go in the messages") == 1
    assert not await engine.client.registered()
    await engine.close()
    assert not content(tmp_path)


async def test_memory_that_a_broken_call_still_uses_is_let_go_of_later(
    served: tuple[Path, str], store: Path, tmp_path: Path
) -> None:
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    config = add_tiny_classifier(store, classes=2**16, runner="python", batching=ALONE)
    with config.path.with_name("model.py").open("a") as file:
        file.write(GATED.format(gate=str(gate), begun=str(begun)))
    gate.touch()
    source = StoreSource(store, Service(), "default")
    async with cable(served[1]) as way, TritonClient(served[1]) as straight:
        engine = TritonEngine(TritonClient(way.url), source.describe, exclusive=True)
        loaded = await engine.load(config)
        before = await straight.registered()
        gate.unlink()
        begun.unlink()
        slot = await loaded.acquire()
        answer = asyncio.create_task(loaded.infer(slot, 1))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not begun.exists():  # of another process
                await asyncio.sleep(0.02)
        way.cut()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await straight.registered() > before:  # of another process
                await asyncio.sleep(0.02)
        gate.touch()
        await answer
        loaded.release(slot)
        assert await straight.registered()
        await engine.close()
        assert not await straight.registered()


async def test_a_deadline_passes_and_the_slot_comes_back(engine: TritonEngine, store: Path) -> None:
    loaded = await engine.load(slow_classifier(store))
    slots = [await loaded.acquire() for _ in range(4)]
    with pytest.raises(DeadlineExceeded):
        await loaded.infer(slots[0], 1, timeout_microseconds=100_000)
    loaded.release(slots[0])
    again = asyncio.create_task(loaded.acquire())
    await asyncio.sleep(0)
    assert not again.done(), "Triton still reads it"
    assert await again is slots[0]


async def test_what_a_model_raises_is_told(engine: TritonEngine, store: Path) -> None:
    config = add_tiny_classifier(store, runner="python", batching=ALONE)
    with config.path.with_name("model.py").open("a") as file:
        file.write("\ndef _refuse(self, requests): raise ValueError('no')\nTritonPythonModel.execute = _refuse\n")
    with pytest.raises(ConfigurationError, match=r"model 'tiny': can't be executed: .*no"):
        await engine.load(config)


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_model_whose_process_dies_is_loaded_anew(
    served: tuple[Path, str], store: Path, tmp_path: Path, processes: int, caplog: pytest.LogCaptureFixture
) -> None:
    once = tmp_path / "once"
    config = add_tiny_classifier(store, runner="python")
    with config.path.with_name("model.py").open("a") as file:
        file.write(DIES.format(once=str(once)))
    describe = StoreSource(store, Service(), "default").describe
    engines = [TritonEngine(TritonClient(served[1]), describe, processes=processes) for _ in range(processes)]
    loaded = [await engine.load(config) for engine in engines]
    for _ in range(2):
        once.touch()
        batches = [colours(each, RED, BLUE) for each in loaded for _ in range(6)]
        assert await asyncio.gather(*batches) == [[0, 2]] * len(batches)
        assert not once.exists()
    assert caplog.text.count("loaded anew") == 2
    for each in loaded:
        with pytest.raises(Internal, match="not healthy"):
            await colours(each, RED, RED, RED)
        assert await colours(each, RED) == [0]
    for engine in engines:
        await engine.close()


async def test_what_triton_can_not_load_is_told(engine: TritonEngine, store: Path) -> None:
    config = add_tiny_classifier(store, runner="python")
    config.path.write_bytes(b"not a model")
    with pytest.raises(ConfigurationError, match="can't load tiny: "):
        await engine.load(config)


async def test_it_tells_what_the_files_say(served: tuple[Path, str], store: Path) -> None:
    add_tiny_classifier(store, runner="python")
    add_tiny_detector(store, runner="python")
    files = StoreSource(store, Service(), "default")
    client = TritonClient(served[1])
    offers = await TritonSource(client, Service(), "default").offers()
    for name, (told, _) in offers.items():
        written = (await files.offers())[name].config
        assert (told.labels, told.head, told.task) == (written.labels, written.head, written.task)
        assert (told.input, told.outputs, told.version) == (written.input, written.outputs, written.version)
    assert offers.keys() == {"tiny", "tiny-detector"}
    await client.close()


async def test_one_that_loads_all_at_its_start_and_nothing_later(tmp_path: Path) -> None:
    config = add_tiny_classifier(tmp_path / "models", runner="python")
    async with running(tmp_path / "models", tmp_path / "logs", control="none") as triton:
        client = TritonClient(triton.url)
        with pytest.raises(NotSteered):
            await client.load("tiny")
        source = TritonSource(client, Service(), "default")
        offer = (await source.offers())["tiny"]
        assert offer.config.labels == config.labels
        engine = TritonEngine(client, source.describe)
        assert await colours(await engine.load(offer.config), BLUE) == [2]
        await engine.close()
