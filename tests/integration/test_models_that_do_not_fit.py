"""Models that mix pictures, ask for too much or answer something else, beside one that is as it should be."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from shoal.client import AsyncClient
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import Task
from shoal.modelstore.making.build import add_model
from shoal.modelstore.making.recipe import Recipe
from shoal.runtime.watch import changes
from support.pictures import encode
from support.stack import Stack, running_stack
from support.tiny_models import COLOURS, add_mixing_classifier, add_tiny_classifier, model

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

BATCHING = BatchingSettings(max_batch_size=8, max_queue_delay_microseconds=20_000, instance_count=1)
BOX = (8.0, 4.0, 24.0, 16.0, 0.75, 2.0)
"""x1, y1, x2, y2 in pixels of 32 x 32, score, class."""


def end_to_end() -> onnx.ModelProto:
    """One box, whatever is shown, and rows for none."""
    rows = np.zeros((1, 20, 6), np.float32)
    rows[0, 0] = BOX
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "zero"], ["zeros"]),
        helper.make_node("Reshape", ["zeros", "shape"], ["rows"]),
        helper.make_node("Add", ["rows", "boxes"], ["output0"]),
    ]
    constants = {"zero": np.zeros(1, np.float32), "shape": np.array([-1, 1, 1]), "boxes": rows}
    return model(nodes, 32, constants, {"output0": [20, 6]})


def add_models(store: Path) -> None:
    add_tiny_classifier(store)
    add_mixing_classifier(store, batching=BATCHING)
    recipe = Recipe(name="ends", task=Task.DETECTION, head="end_to_end", labels=COLOURS, batching=BATCHING)
    add_model(store, end_to_end(), recipe)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("unfit") / "home", models=add_models) as running:
        yield running


PICTURES = {
    colour: encode(Image.new("RGB", (48, 48), colour), "PNG") for colour in ("red", "green", "blue", "grey")
} | {"green": encode(Image.new("RGB", (48, 48), (0, 255, 0)), "PNG")}


def told(stack: Stack) -> str:
    """The worker's log."""
    return Path(stack.part("worker-default-1").log).read_text()


async def ask(client: AsyncClient, name: str, colour: str) -> None:
    found = await client.classify(PICTURES[colour], name)
    assert found.classes[0].label == colour
    assert sum(each.probability for each in found.classes) == pytest.approx(1, abs=0.01)


async def test_pictures_that_come_together_dont_change_each_others_answers(stack: Stack) -> None:
    async with AsyncClient(stack.target, api_key=stack.api_key) as client:
        await asyncio.gather(*(ask(client, name, colour) for name in ("mixing", "tiny") for colour in [*PICTURES] * 8))
    assert await stack.metric("worker-default-1", "shoal_worker_batch_limit", model="mixing") == 1
    assert "model mixing is served with batches of 1: " in told(stack)
    done = stack.shoal("model", "check", "mixing")
    assert "workers take batches of 1 alone" in done.stdout


async def test_end_to_end_boxes(stack: Stack) -> None:
    async with AsyncClient(stack.target, api_key=stack.api_key) as client:
        (box,) = (await client.detect(PICTURES["red"], "ends")).boxes
    assert (box.label, box.score) == ("blue", 0.75)
    assert (box.x, box.y, box.width, box.height) == pytest.approx((0.25, 0.125, 0.5, 0.375))


async def test_what_cant_be_served_leaves_the_others_alone_and_check_finds_it(stack: Stack) -> None:
    unfit = add_mixing_classifier(stack.home.models, "unfit").path.parent.parent / "config.pbtxt"
    unfit.write_text(unfit.read_text().replace('"probabilities"', '"softmax"'))  # a softmax twice
    absurd = add_tiny_classifier(stack.home.models, "absurd").path.parent.parent / "config.pbtxt"
    absurd.write_text(absurd.read_text().replace("max_batch_size: 4", "max_batch_size: 2147483647"))
    wanted = ("model unfit is not served: ", "model absurd is not served: ")
    async with asyncio.timeout(60):
        async for _ in changes(stack.home.logs):
            if all(text in told(stack) for text in wanted):
                break
    async with AsyncClient(stack.target, api_key=stack.api_key) as client:
        await asyncio.gather(*(ask(client, "tiny", colour) for colour in PICTURES))
    assert stack.part("worker-default-1").restarts == 0
    for name, reason in (("unfit", "use head probabilities"), ("absurd", "so 349,525 is the most")):
        done = stack.shoal("model", "check", name, check=False)
        assert (done.returncode, reason in done.stdout) == (1, True)
