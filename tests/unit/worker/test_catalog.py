from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from shoal.batching.service import BatchingService
from shoal.batching.settings import BatchingSettings
from shoal.errors import ConfigurationError, Unavailable
from shoal.spec import ModelOverride, parse
from shoal.worker.catalog import Catalog, overridden
from shoal.worker.heads import make_head
from shoal.worker.sources import StoreSource
from support.scripted_engine import CONFIG, ScriptedModel
from support.tiny_models import add_tiny_classifier, add_tiny_detector

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoal.modelstore.config import ModelConfig


@dataclass
class ScriptedEngine:
    """Loads anything but what it is told not to."""

    broken: set[str] = field(default_factory=set)
    loaded: list[str] = field(default_factory=list)

    async def load(self, config: ModelConfig) -> ScriptedModel:
        if config.name in self.broken:
            raise ConfigurationError("it can't be read")
        self.loaded.append(config.name)
        return ScriptedModel(config)

    async def close(self) -> None: ...


@dataclass
class ServedModel:
    """What a batching service asks of a model as long as no batch comes."""

    settings: BatchingSettings


def prepare(config: ModelConfig) -> Callable[[Any], Any]:
    make_head(config)
    return lambda loaded: ServedModel(loaded.config.batching)


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


async def test_a_replacement_that_cant_be_loaded_leaves_the_old_one(store: Path, engine: ScriptedEngine) -> None:
    served = catalog(store, engine)
    await served.refresh()
    engine.broken.add("one")
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
    assert set(served.found.troubles or ()) == {"one"}
    config.write_text(before)
    await served.refresh()
    assert not served.found.troubles


async def test_what_is_refused_is_told_until_it_is_taken(store: Path, engine: ScriptedEngine) -> None:
    engine.broken.add("two")
    served = catalog(store, engine)
    await served.refresh()
    assert (served.refused, served.found.troubles) == (True, {"two": "it can't be read"})
    engine.broken.clear()
    await served.refresh()
    assert (served.refused, served.found.troubles, sorted(served.names)) == (False, {}, ["one", "two"])


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


def test_what_the_service_file_says_comes_before_the_models_own_settings() -> None:
    changed = overridden(CONFIG, ModelOverride(max_batch_size=3, preferred_batch_size=[1, 3], batchers=2))
    assert changed.batching == BatchingSettings(max_batch_size=3, preferred_batch_size=(1, 3), instance_count=1)
    assert overridden(CONFIG, ModelOverride()) == CONFIG
