from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import helper, numpy_helper, save

from shoal.batching.settings import BatchingSettings
from shoal.engine.openvino import OpenVinoEngine, OpenVinoModel
from shoal.errors import ConfigurationError, DeadlineExceeded, Internal, Unavailable
from shoal.modelstore.config import Tensor
from support.tiny_models import add_tiny_classifier, add_tiny_detector, model

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from shoal.modelstore.config import ModelConfig

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture
async def engine() -> AsyncIterator[OpenVinoEngine]:
    made = OpenVinoEngine(threads=1, precision="f32")
    yield made
    await made.close()


async def colours(loaded: OpenVinoModel, *pictures: tuple[int, int, int]) -> list[int]:
    """The classes of plain pictures, as one batch."""
    slot = await loaded.acquire()
    try:
        for row, colour in enumerate(pictures):
            slot.input[row] = colour
        outputs = (await loaded.infer(slot, len(pictures))).outputs
    finally:
        loaded.release(slot)
    (output,) = outputs.values()
    assert output.shape == (len(pictures), 4)
    return [int(row.argmax()) for row in output]


async def test_batches_of_every_size(engine: OpenVinoEngine, tmp_path: Path) -> None:
    loaded = await engine.load(add_tiny_classifier(tmp_path))
    for pictures in ([RED], [GREEN, BLUE], [BLUE, RED, GREEN], [RED, GREEN, BLUE, RED]):
        assert await colours(loaded, *pictures) == [colour.index(255) for colour in pictures]


async def test_several_models_and_outputs_at_once(engine: OpenVinoEngine, tmp_path: Path) -> None:
    classifier = await engine.load(add_tiny_classifier(tmp_path))
    detector = await engine.load(add_tiny_detector(tmp_path))
    slot = await detector.acquire()
    slot.input[:2] = 255
    inference, found = await asyncio.gather(detector.infer(slot, 2), colours(classifier, GREEN))
    outputs = inference.outputs
    assert found == [1]
    assert {name: value.shape for name, value in outputs.items()} == {"boxes": (2, 4, 4), "scores": (2, 4)}
    np.testing.assert_allclose(outputs["scores"], 1, atol=0.01)


async def test_outputs_outlive_their_slot(engine: OpenVinoEngine, tmp_path: Path) -> None:
    loaded = await engine.load(add_tiny_classifier(tmp_path, batching=BatchingSettings(max_batch_size=1)))
    slot = await loaded.acquire()
    slot.input[0] = RED
    first = (await loaded.infer(slot, 1)).outputs
    before = {name: value.copy() for name, value in first.items()}
    slot.input[0] = BLUE
    await loaded.infer(slot, 1)
    for name, value in before.items():
        np.testing.assert_array_equal(first[name], value)


async def test_many_batches_in_flight(engine: OpenVinoEngine, tmp_path: Path) -> None:
    loaded = await engine.load(add_tiny_classifier(tmp_path))
    pictures = [(RED, GREEN, BLUE)[number % 3] for number in range(60)]
    found = await asyncio.gather(*(colours(loaded, picture, RED) for picture in pictures))
    assert found == [[picture.index(255), 0] for picture in pictures]


async def test_slots_are_bounded_and_reused(engine: OpenVinoEngine, tmp_path: Path) -> None:
    loaded = await engine.load(add_tiny_classifier(tmp_path))  # 2 instances, 1 prefetched, 2 overshoot
    slots = [await loaded.acquire() for _ in range(5)]
    assert all(slot.input.shape == (4, 32, 32, 3) and slot.input.flags.c_contiguous for slot in slots)
    waiting = asyncio.create_task(loaded.acquire())
    await asyncio.sleep(0)
    assert not waiting.done()
    loaded.release(slots[3])
    assert await waiting is slots[3]


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


async def test_closing_a_model_turns_everyone_away_and_waits(engine: OpenVinoEngine, tmp_path: Path) -> None:
    config = add_tiny_classifier(tmp_path)
    loaded = await engine.load(config)
    slots = [await loaded.acquire() for _ in range(5)]
    waiting = asyncio.create_task(loaded.acquire())
    await asyncio.sleep(0)
    running = asyncio.create_task(loaded.infer(slots[0], 1))
    await asyncio.sleep(0)
    await loaded.close()
    assert len((await running).outputs) == 1
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        await loaded.acquire()
    with pytest.raises(Unavailable):
        await loaded.infer(slots[1], 1)
    loaded.release(slots[0])
    assert await colours(await engine.load(config), BLUE) == [2]


async def test_the_cache_is_made_and_used(tmp_path: Path) -> None:
    config = add_tiny_classifier(tmp_path / "store")
    for _ in range(2):
        engine = OpenVinoEngine(cache=tmp_path / "cache", threads=1)
        assert await colours(await engine.load(config), RED) == [0]
        await engine.close()
    assert list((tmp_path / "cache").iterdir())


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


async def test_a_failing_inference_is_told_and_the_next_one_works(engine: OpenVinoEngine, tmp_path: Path) -> None:
    loaded = await engine.load(add_tiny_classifier(tmp_path, batching=BatchingSettings(max_batch_size=1)))
    slot = await loaded.acquire()
    slot.input = np.zeros((1, 32, 32, 5), np.uint8)
    with pytest.raises(Internal, match="inference failed"):
        await loaded.infer(slot, 1)
    assert await colours(loaded, GREEN) == [1]
