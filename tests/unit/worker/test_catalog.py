from __future__ import annotations

import asyncio
import dataclasses
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from shoal.batching.service import BatchingService
from shoal.engine import NotBatchable
from shoal.engine.openvino import OpenVinoEngine
from shoal.errors import ConfigurationError, Internal, Unavailable
from shoal.modelconfig.batching import BatchingSettings
from shoal.service.spec import ModelOverride, parse
from shoal.worker.catalog import Catalog, overridden
from shoal.worker.heads.head import make_head
from shoal.worker.store_source import StoreSource
from support.scripted_engine import CONFIG, ScriptedModel
from support.tiny_models import add_tiny_classifier, add_tiny_detector, add_tiny_yolo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoal.modelconfig.model import ModelConfig


CANT_READ = ConfigurationError("it can't be read")


@dataclass
class ScriptedEngine:
    """Loads anything but what it is told not to."""

    broken: dict[str, Exception] = field(default_factory=dict)
    """Models, and what their load ends with."""
    mixing: set[str] = field(default_factory=set)
    """Models that take batches of 1 alone."""
    tried: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    models: dict[str, ScriptedModel] = field(default_factory=dict)

    async def load(self, config: ModelConfig) -> ScriptedModel:
        self.tried.append(config.name)
        if error := self.broken.get(config.name):
            raise error
        if config.name in self.mixing and config.batching.max_batch_size > 1:
            raise NotBatchable("its pictures mix")
        self.loaded.append(config.name)
        self.models[config.name] = ScriptedModel(config)
        return self.models[config.name]

    async def close(self) -> None: ...


@dataclass
class ServedModel:
    """What a batching service asks of a model as long as no batch comes."""

    settings: BatchingSettings


def prepare(config: ModelConfig) -> Callable[[Any], Any]:
    make_head(config)
    return lambda loaded: ServedModel(loaded.config.batching)


async def until(condition: Callable[[], bool]) -> None:
    """Lets others run until it holds."""
    while not condition():  # what happens in the store's thread sets no event
        await asyncio.sleep(0)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    add_tiny_classifier(tmp_path, "one")
    add_tiny_detector(tmp_path, "two")
    return tmp_path


def catalog(store: Path, engine: ScriptedEngine, service: str = "") -> Catalog:
    read = parse(service, "s")
    source = StoreSource(store, read, "default")
    return Catalog(source, read, engine=engine, batching=BatchingService(), prepare=prepare)


async def test_every_model_is_loaded_once(store: Path, engine: ScriptedEngine) -> None:
    served = catalog(store, engine)
    await served.refresh()
    await served.refresh()
    assert engine.loaded == ["one", "two"]
    assert sorted(served.names) == ["one", "two"]


async def test_a_model_that_no_head_reads_leaves_the_others_alone(
    store: Path, engine: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    config = store / "two" / "config.pbtxt"
    config.write_text(config.read_text().replace('name: "boxes"', 'name: "corners"'))
    served = catalog(store, engine)
    await served.refresh()
    assert list(served.names) == ["one"]
    assert "model two is not served" in caplog.text
    assert list(served.failed) == ["two"]
    assert "head boxes_scores reads" in served.failed["two"]
    await served.refresh()
    assert caplog.text.count("model two is not served") == 1
    assert engine.tried == ["one"], "what no head reads isn't loaded for it to be seen again"


async def test_a_replacement_that_cant_be_loaded_leaves_the_old_one(store: Path, engine: ScriptedEngine) -> None:
    served = catalog(store, engine)
    await served.refresh()
    engine.broken["one"] = CANT_READ
    (store / "one" / "1" / "model.onnx").write_bytes(b"half a mod")
    await served.refresh()
    assert sorted(served.names) == ["one", "two"]


async def test_a_configuration_that_breaks_leaves_the_model_as_it_was_loaded(
    store: Path, engine: ScriptedEngine
) -> None:
    served = catalog(store, engine)
    await served.refresh()
    config = store / "one" / "config.pbtxt"
    before = config.read_text()
    config.write_text("name: {")
    await served.refresh()
    assert sorted(served.names) == ["one", "two"]
    assert set(served.found.troubles) == {"one"}
    config.write_text(before)
    await served.refresh()
    assert not served.found.troubles


async def test_what_is_refused_is_told_until_it_is_taken(store: Path, engine: ScriptedEngine) -> None:
    engine.broken["two"] = CANT_READ
    served = catalog(store, engine)
    await served.refresh()
    assert served.found.troubles == {"two": "it can't be read"}
    engine.broken.clear()
    await served.refresh()
    assert (served.found.troubles, sorted(served.names)) == ({}, ["one", "two"])


async def test_a_store_that_is_away_leaves_what_is_loaded(store: Path, engine: ScriptedEngine) -> None:
    served = catalog(store, engine)
    await served.refresh()
    shutil.move(store, store.with_name("unmounted"))
    with pytest.raises(Unavailable, match="can't be read"):
        await served.refresh()
    assert sorted(served.names) == ["one", "two"]


async def test_new_weights_under_the_same_configuration_are_loaded(store: Path, engine: ScriptedEngine) -> None:
    served = catalog(store, engine)
    await served.refresh()
    file = store / "one" / "1" / "model.onnx"
    twin = file.with_name("model.new")
    shutil.copy2(file, twin)
    twin.replace(file)
    await served.refresh()
    assert engine.loaded == ["one", "two", "one"]


async def test_a_model_that_is_gone_is_closed(store: Path, engine: ScriptedEngine) -> None:
    served = catalog(store, engine)
    await served.refresh()
    shutil.rmtree(store / "one")
    await served.refresh()
    assert list(served.names) == ["two"]


async def test_a_pool_serves_its_own_models(store: Path, engine: ScriptedEngine) -> None:
    served = catalog(store, engine, "pools: {default: {models: [one]}, other: {models: ['*']}}")
    await served.refresh()
    assert list(served.names) == ["one"]


@pytest.mark.parametrize(
    "error", [CANT_READ, Internal("odd"), MemoryError(), OSError(28, "No space left"), KeyError("x")]
)
async def test_a_model_that_cant_be_loaded_leaves_the_others_alone_and_is_tried_again(
    store: Path, engine: ScriptedEngine, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    engine.broken["one"] = error
    served = catalog(store, engine)
    for _ in range(3):
        await served.refresh()
        assert (list(served.names), list(served.failed)) == (["two"], ["one"])
    assert engine.tried.count("one") == 3
    assert caplog.text.count("model one is not served") == 1, "a reason is told once"
    engine.broken.clear()
    await served.refresh()
    assert (sorted(served.names), dict(served.failed)) == (["one", "two"], {})


async def test_one_that_meets_an_engine_that_is_away_leaves_the_others_alone(
    store: Path, engine: ScriptedEngine
) -> None:
    engine.broken["one"] = Unavailable("away for this one")
    served = catalog(store, engine)
    await served.refresh()
    assert (list(served.names), dict(served.failed)) == (["two"], {"one": "away for this one"})
    with pytest.raises(Unavailable):  # all that is left to load
        await served.refresh()


async def test_what_failed_is_tried_again_by_itself(store: Path, engine: ScriptedEngine) -> None:
    engine.broken["one"] = Unavailable("not yet")
    served = catalog(store, engine)
    await served.refresh()

    async def look() -> None:
        with suppress(Unavailable):  # all that is left to load
            await served.refresh()

    async with asyncio.TaskGroup() as group:
        trying = group.create_task(served.keep_trying(look, first_pause=0))
        await until(lambda: engine.tried.count("one") == 3)
        engine.broken["one"] = CANT_READ
        await until(lambda: served.failed["one"] == "it can't be read")
        engine.broken.clear()
        await until(lambda: not served.failed)
        trying.cancel()
    assert sorted(served.names) == ["one", "two"]


async def test_a_model_that_mixes_pictures_is_served_with_batches_of_1_and_that_is_told(
    store: Path, engine: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.mixing.add("one")
    served = catalog(store, engine)
    await served.refresh()
    assert sorted(served.names) == ["one", "two"]
    assert dict(served.failed) == {}
    assert dict(served.alone) == {"one": "its pictures mix"}
    assert engine.models["one"].config.batching.max_batch_size == 1
    assert "model one is served with batches of 1: its pictures mix" in caplog.text
    await served.refresh()
    assert engine.loaded == ["one", "two"], "it is as it was offered"


async def test_a_model_whose_answers_dont_fit_its_head_is_not_served(store: Path, engine: ScriptedEngine) -> None:
    config = store / "one" / "config.pbtxt"  # the scripted model's logits reach 15.9
    config.write_text(config.read_text().replace('"softmax"', '"probabilities"'))
    served = catalog(store, engine)
    await served.refresh()
    assert list(served.names) == ["two"]
    assert "outside [0, 1], so these are no probabilities; head softmax reads logits" in served.failed["one"]


@pytest.mark.parametrize("error", [ConfigurationError("odd labels"), MemoryError(), asyncio.CancelledError()])
async def test_a_model_that_can_not_be_put_together_is_closed(
    store: Path, engine: ScriptedEngine, error: BaseException
) -> None:
    def fail(loaded: Any) -> Any:
        raise error

    read = parse("pools: {default: {models: [one]}, other: {models: ['*']}}", "s")
    source = StoreSource(store, read, "default")
    served = Catalog(source, read, engine=engine, batching=BatchingService(), prepare=lambda _: fail)
    with suppress(asyncio.CancelledError):
        await served.refresh()
    assert not served.names
    assert engine.models["one"].closed


async def test_a_model_that_its_engine_lost_is_told(store: Path, engine: ScriptedEngine) -> None:
    served = catalog(store, engine)
    await served.refresh()
    engine.models["two"].trouble = "it was deleted there"
    assert dict(served.failed) == {"two": "it was deleted there"}
    assert sorted(served.names) == ["one", "two"]


async def test_a_model_that_asks_for_too_much_is_named(store: Path) -> None:
    """Of a real engine: a million pictures fit no slot."""
    real = OpenVinoEngine(threads=1)
    config = store / "one" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 4", "max_batch_size: 2147483647"))
    read = parse("models: {two: {max_batch_size: 1000000}}", "s")
    add_tiny_yolo(store, "three")
    source = StoreSource(store, read, "default")
    served = Catalog(source, read, engine=real, batching=BatchingService(), prepare=prepare)
    await served.refresh()
    assert list(served.names) == ["three"]
    assert "is 2,147,483,647, and one picture takes 3,072 bytes" in served.failed["one"]
    assert "so 349,525 is the most" in served.failed["two"]
    await real.close()


def test_what_the_service_file_says_comes_before_the_models_own_settings() -> None:
    changed = overridden(CONFIG, ModelOverride(max_batch_size=3, preferred_batch_size=[1, 3], batchers=2))
    assert changed.batching == BatchingSettings(max_batch_size=3, preferred_batch_size=(1, 3), instance_count=1)
    assert overridden(CONFIG, ModelOverride()) == CONFIG
    objective = overridden(CONFIG, ModelOverride(latency_objective_ms=2.5)).batching
    assert objective == dataclasses.replace(CONFIG.batching, latency_objective_microseconds=2500)
