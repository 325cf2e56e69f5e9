"""Parts of a picture that fail alone, through the whole service: each has its own code, and the others are whole."""

from __future__ import annotations

import io
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import helper
from PIL import Image

from shoal.client import AsyncClient
from shoal.errors import Code
from shoal.modelconfig.model import Task
from shoal.modelstore.making.build import add_model
from shoal.modelstore.making.recipe import Recipe
from support.blows import at_work
from support.stack import Stack, running_stack
from support.tiny_models import (
    BATCHING,
    COLOURS,
    add_tiny_classifier,
    add_tiny_detector,
    add_tiny_segmenter,
    add_tiny_yolo,
    model,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from shoal.client import Analysis, Finding, StepResult

SERVICE = """\
pools:
  default: {models: [tiny, tiny-detector, tiny-yolo, tiny-segmenter, fragile]}
  apart: {models: [apart]}
pipelines:
  cells:
    detect: {model: tiny-yolo, max_boxes: 16}
    then:
      - {model: fragile, for: [red]}
      - {model: apart, for: [green]}
      - {model: tiny-segmenter, name: outline, for: [blue]}
  deep:
    detect: {model: tiny-detector, score_threshold: 0.2}
    then:
      - model: tiny-yolo
        name: inner
        then: [{model: fragile, for: [red]}, {model: tiny, for: [green, blue]}]
"""
RED, ORANGE, GREEN, BLUE = (255, 0, 0), (255, 26, 0), (0, 255, 0), (0, 0, 255)
"""Orange is red to the detector, and what ``fragile`` can't stand."""


def add_fragile(store: Path) -> None:
    """The tiny classifier, whose numbers are none for an orange picture: a square root of less than nothing.

    No picture that models are tried with is orange, so nothing is known of it before one comes.
    """
    weights = np.full((3, 4), -10, np.float32)
    weights[range(3), range(3)] = 20
    weights[:, 3] = 0
    constants: dict[str, np.ndarray] = {
        "weights": weights,
        "bias": np.array([0, 0, 0, 6], np.float32),
        # Of the means of red, green and blue: one of the three is above 0, unless the picture is orange.
        "signs": np.array([-1, -1, 1], np.float32),
        "bounds": np.array([0.95, 0.05, -0.05], np.float32),
    }
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["means"]),
        helper.make_node("Flatten", ["means"], ["features"]),
        helper.make_node("Gemm", ["features", "weights", "bias"], ["sound"]),
        helper.make_node("Mul", ["features", "signs"], ["signed"]),
        helper.make_node("Add", ["signed", "bounds"], ["beyond"]),
        helper.make_node("ReduceMax", ["beyond"], ["farthest"], axes=[1], keepdims=1),
        helper.make_node("Sqrt", ["farthest"], ["root"]),
        helper.make_node("Add", ["sound", "root"], ["logits"]),
    ]
    settings = Recipe(name="fragile", task=Task.CLASSIFICATION, labels=COLOURS, batching=BATCHING)
    add_model(store, model(nodes, 32, constants, {"logits": [4]}), settings)


def add_models(store: Path) -> None:
    add_tiny_classifier(store)
    add_tiny_classifier(store, "apart")
    add_tiny_detector(store)
    add_tiny_yolo(store)
    add_tiny_segmenter(store)
    add_fragile(store)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("parts"), models=add_models, service=SERVICE) as stack:
        yield stack


@pytest.fixture
async def client(served: Stack) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(served.target, api_key=served.api_key, timeout_seconds=30) as opened:
        yield opened


def cells(*colours: tuple[int, int, int]) -> Image.Image:
    """4 x 4 cells, those named from the upper left; the others are grey."""
    pixels = np.full((4, 4, 3), 128, np.uint8)
    pixels.reshape(16, 3)[: len(colours)] = colours
    return Image.fromarray(pixels).resize((256, 256), Image.Resampling.NEAREST)


def encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def only(finding: Finding) -> StepResult:
    (result,) = finding.results
    return result


def place(finding: Finding) -> int:
    """Which of the 16 cells."""
    return int(finding.box.y * 4 + 0.01) * 4 + int(finding.box.x * 4 + 0.01)


def codes(found: Analysis) -> dict[int, Code]:
    """By the cell."""
    told = {place(each): only(each).error for each in found.findings}
    return {cell: error.code if error else Code.OK for cell, error in told.items()}


def whole(found: Analysis, cell: int) -> StepResult:
    return next(only(each) for each in found.findings if place(each) == cell)


@contextmanager
def paused(stack: Stack, name: str) -> Iterator[None]:
    """A part that is there and answers nothing."""
    process = at_work(stack.part(name))
    process.suspend()
    try:
        yield
    finally:
        process.resume()


async def test_of_many_crops_in_a_batch_the_one_that_breaks_its_model_fails_alone(client: AsyncClient) -> None:
    colours = [RED] * 16
    colours[5] = ORANGE
    found = await client.analyze(encoded(cells(*colours)), "cells")
    assert codes(found) == {cell: Code.INTERNAL if cell == 5 else Code.OK for cell in range(16)}
    for finding in found.findings:
        if place(finding) != 5:
            assert only(finding).classes[0].label == "red"
            assert only(finding).classes[0].probability > 0.99
    step = {each.step: each for each in found.steps}
    assert (step["fragile"].calls, step["fragile"].failed) == (16, 1)


async def test_two_parts_that_fail_in_different_steps_have_a_code_each(client: AsyncClient, served: Stack) -> None:
    assert set(codes(await client.analyze(encoded(cells(RED, GREEN, BLUE)), "cells")).values()) == {Code.OK}
    picture = encoded(cells(RED, ORANGE, GREEN, BLUE))
    with paused(served, "worker-apart-1"):
        found = await client.analyze(picture, "cells", timeout_seconds=6)
    assert codes(found) == {0: Code.OK, 1: Code.INTERNAL, 2: Code.DEADLINE_EXCEEDED, 3: Code.OK}
    assert whole(found, 0).classes[0].label == "red"
    mask = whole(found, 3).mask
    assert mask is not None
    assert mask.regions[0].label == "blue"
    assert {each.step: each.failed for each in found.steps} == {"tiny-yolo": 0, "fragile": 1, "apart": 1, "outline": 0}
    again = await client.analyze(encoded(cells(RED, GREEN, BLUE)), "cells")
    assert set(codes(again).values()) == {Code.OK}


async def test_three_steps_deep_the_last_fails_for_its_box_alone(client: AsyncClient) -> None:
    colours = [RED, GREEN, RED, BLUE, BLUE, RED, GREEN, ORANGE, GREEN, GREEN, RED, RED, BLUE, RED, RED, BLUE]
    found = await client.analyze(encoded(cells(*colours).resize((512, 512), Image.Resampling.NEAREST)), "deep")
    inner = [box for quadrant in found.findings for box in only(quadrant).findings]
    assert inner
    failed = [box for box in inner if only(box).error]
    assert {place(box) for box in failed} == {7}
    assert {only(box).error.code for box in failed} == {Code.INTERNAL}
    assert all(only(box).classes[0].label == box.box.label for box in inner if place(box) != 7)
    assert all(only(quadrant).error is None for quadrant in found.findings)
