"""What holds for every engine: see ``shoal.engine``. A test module inherits it and gives the fixtures."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from shoal.engine import probe
from shoal.errors import Internal, Unavailable
from shoal.modelconfig.batching import BatchingSettings
from support.tiny_models import add_mixing_classifier, add_tiny_classifier, add_tiny_detector

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.engine import Engine, LoadedModel

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
ALONE = BatchingSettings(max_batch_size=1)


async def colours(loaded: LoadedModel[Any], *pictures: tuple[int, int, int]) -> list[int]:
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


class EngineContract:
    """Fixtures: ``engine``, and ``store``, an empty folder whose models that engine can load."""

    async def test_batches_of_every_size(self, engine: Engine, store: Path) -> None:
        loaded = await engine.load(add_tiny_classifier(store, runner="python"))
        for pictures in ([RED], [GREEN, BLUE], [BLUE, RED, GREEN], [RED, GREEN, BLUE, RED]):
            assert await colours(loaded, *pictures) == [colour.index(255) for colour in pictures]

    async def test_several_models_and_outputs_at_once(self, engine: Engine, store: Path) -> None:
        classifier = await engine.load(add_tiny_classifier(store, runner="python"))
        detector = await engine.load(add_tiny_detector(store, runner="python"))
        slot = await detector.acquire()
        slot.input[:2] = 255
        inference, found = await asyncio.gather(detector.infer(slot, 2), colours(classifier, GREEN))
        outputs = inference.outputs
        assert found == [1]
        assert {name: value.shape for name, value in outputs.items()} == {"boxes": (2, 4, 4), "scores": (2, 4)}
        np.testing.assert_allclose(outputs["scores"], 1, atol=0.01)

    async def test_outputs_outlive_their_slot(self, engine: Engine, store: Path) -> None:
        loaded = await engine.load(add_tiny_classifier(store, runner="python", batching=ALONE))
        slot = await loaded.acquire()
        slot.input[0] = RED
        first = (await loaded.infer(slot, 1)).outputs
        before = {name: value.copy() for name, value in first.items()}
        slot.input[0] = BLUE
        await loaded.infer(slot, 1)
        for name, value in before.items():
            np.testing.assert_array_equal(first[name], value)

    async def test_large_outputs(self, engine: Engine, store: Path) -> None:
        loaded = await engine.load(add_tiny_classifier(store, runner="python", classes=8192))
        slot = await loaded.acquire()
        slot.input[0], slot.input[1] = GREEN, BLUE
        first = (await loaded.infer(slot, 2)).outputs["logits"]
        slot.input[0] = RED
        second = (await loaded.infer(slot, 1)).outputs["logits"]
        assert (first.shape, second.shape) == ((2, 8192), (1, 8192))
        assert [int(row.argmax()) for row in (*first, *second)] == [1, 2, 0]

    async def test_many_batches_in_flight(self, engine: Engine, store: Path) -> None:
        loaded = await engine.load(add_tiny_classifier(store, runner="python"))
        pictures = [(RED, GREEN, BLUE)[number % 3] for number in range(60)]
        found = await asyncio.gather(*(colours(loaded, picture, RED) for picture in pictures))
        assert found == [[picture.index(255), 0] for picture in pictures]

    async def test_pictures_that_would_mix_come_alone(self, engine: Engine, store: Path) -> None:
        probed = await probe.load(engine, add_mixing_classifier(store, runner="python"))
        assert "changes with what is in the rest of the batch" in probed.alone_because
        slot = await probed.model.acquire()
        assert len(slot.input) == 1
        probed.model.release(slot)
        for colour in (RED, GREEN, BLUE):
            assert await colours(probed.model, colour) == [colour.index(255)]

    async def test_pictures_that_mind_their_own_business_come_together(self, engine: Engine, store: Path) -> None:
        for config in (add_tiny_classifier(store, runner="python"), add_tiny_detector(store, runner="python")):
            probed = await probe.load(engine, config)
            assert (probed.alone_because, probed.model.config) == ("", config)

    async def test_slots_are_bounded_and_reused(self, engine: Engine, store: Path) -> None:
        loaded = await engine.load(add_tiny_classifier(store, runner="python"))  # 2 instances, 1 prefetched, 2 over
        slots = [await loaded.acquire() for _ in range(5)]
        assert all(slot.input.shape == (4, 32, 32, 3) and slot.input.flags.c_contiguous for slot in slots)
        waiting = asyncio.create_task(loaded.acquire())
        await asyncio.sleep(0)
        assert not waiting.done()
        loaded.release(slots[3])
        assert await waiting is slots[3]

    async def test_closing_a_model_turns_everyone_away_and_waits(self, engine: Engine, store: Path) -> None:
        config = add_tiny_classifier(store, runner="python")
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

    async def test_a_failing_inference_is_told_and_the_next_one_works(self, engine: Engine, store: Path) -> None:
        loaded = await engine.load(add_tiny_classifier(store, runner="python", batching=ALONE))
        slot = await loaded.acquire()
        good, slot.input = slot.input, np.zeros((2, 32, 32, 3), np.uint8)
        with pytest.raises(Internal, match="inference failed"):
            await loaded.infer(slot, 2)
        slot.input = good
        loaded.release(slot)
        assert await colours(loaded, GREEN) == [1]
