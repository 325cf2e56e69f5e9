from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino
import pytest
from onnx import helper, numpy_helper, save

from shoal.engine.openvino import OpenVinoEngine
from shoal.errors import ConfigurationError, DeadlineExceeded
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import Tensor
from support.engine_contract import GREEN, RED, EngineContract, colours
from support.tiny_models import add_tiny_classifier, model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from shoal.modelconfig.model import ModelConfig


@pytest.fixture
async def engine() -> AsyncIterator[OpenVinoEngine]:
    made = OpenVinoEngine(threads=1, precision="f32")
    yield made
    await made.close()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path


class TestOpenVino(EngineContract):
    """The common contract; what follows is this engine's own."""


async def test_a_slot_that_is_still_read_is_not_reused(engine: OpenVinoEngine, tmp_path: Path) -> None:
    loaded = await engine.load(add_tiny_classifier(tmp_path))
    slots = [await loaded.acquire() for _ in range(5)]
    running: Future[Any] = Future()
    slots[0].running = running
    loaded.release(slots[0])
    waiting = asyncio.create_task(loaded.acquire())
    await asyncio.sleep(0)
    assert not waiting.done()
    running.set_result({})
    assert await waiting is slots[0]


async def test_a_deadline_that_passes_before_its_turn(engine: OpenVinoEngine, tmp_path: Path) -> None:
    loaded = await engine.load(add_tiny_classifier(tmp_path, batching=BatchingSettings(max_batch_size=1)))
    gate: Future[None] = Future()
    loaded._threads.submit(gate.result)
    slot = await loaded.acquire()
    with pytest.raises(DeadlineExceeded):
        await loaded.infer(slot, 1, timeout_microseconds=1000)
    assert slot.running is not None
    assert slot.running.cancelled()
    gate.set_result(None)
    loaded.release(slot)
    assert await colours(loaded, GREEN) == [1]


async def test_the_cache_is_made_and_used(tmp_path: Path) -> None:
    config = add_tiny_classifier(tmp_path / "store")
    for _ in range(2):
        engine = OpenVinoEngine(cache=tmp_path / "cache", threads=1)
        assert await colours(await engine.load(config), RED) == [0]
        await engine.close()
    assert list((tmp_path / "cache").iterdir())


async def test_the_arithmetic_is_f32_on_every_machine_unless_told_otherwise(tmp_path: Path) -> None:
    config = add_tiny_classifier(tmp_path)
    engine = OpenVinoEngine(threads=1)
    compiled = engine._compile(openvino.Core(), config)
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32
    assert OpenVinoEngine(threads=1, precision="bf16")._properties(config)["INFERENCE_PRECISION_HINT"] == "bf16"
    await engine.close()


async def test_what_can_not_be_loaded_is_named(engine: OpenVinoEngine, tmp_path: Path) -> None:
    good = add_tiny_classifier(tmp_path)
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"not a model" * 10)
    name = good.input.name
    faults = {
        "garbage.onnx: not a model": replace(good, path=garbage),
        "none.onnx: not a model": replace(good, path=tmp_path / "none.onnx"),
        "model.onnx: expected one input, 'other'": replace(good, input=Tensor("other", "uint8", (32, 32, 3))),
        "model.onnx: there is no output 'other'": replace(good, outputs=(Tensor("other", "float32", (4,)),)),
        "the configuration says float32": replace(good, input=Tensor(name, "float32", (32, 32, 3))),
        r"the configuration says uint8 \(3, 64, 64\)": replace(good, input=Tensor(name, "uint8", (3, 64, 64))),
    }
    for message, config in faults.items():
        with pytest.raises(ConfigurationError, match=message):
            await engine.load(config)


def only_pairs(path: Path, good: ModelConfig) -> ModelConfig:
    """A model that takes batches of 2 and no others, which shows only when it runs."""
    shape = numpy_helper.from_array(np.array([2, 2, 3], np.int64), "shape")
    nodes = [helper.make_node("Reshape", ["input", "shape"], ["out"])]
    made = model(nodes, 2, {"shape": numpy_helper.to_array(shape)}, {}, channels_last=True)
    made.graph.output.append(helper.make_tensor_value_info("out", 1, None))
    save(made, str(path))
    outputs = (Tensor("out", "float32", (2, 3)),)
    return replace(good, path=path, input=Tensor("input", "float32", (2, 2, 3)), outputs=outputs)


async def test_a_model_that_can_not_run_its_batches_is_not_served(engine: OpenVinoEngine, tmp_path: Path) -> None:
    config = only_pairs(tmp_path / "pairs.onnx", add_tiny_classifier(tmp_path))
    with pytest.raises(ConfigurationError, match=r"pairs\.onnx: can't be executed: .*'out' has shape"):
        await engine.load(config)
