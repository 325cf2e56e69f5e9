"""``engine: triton`` with a real Triton, through the whole service."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from shoal.client import AsyncClient
from shoal.engine.triton.shared_memory import DEVICE
from shoal.local.running_triton import running
from shoal.local.setup import FIRST_MODEL
from shoal.modelstore.making import build, efficientnet
from shoal.observe.foreign import FOREIGN, Origin
from shoal.triton.client import TritonClient
from support.metrics import exported
from support.stack import Stack, running_stack
from support.steady_load import FILES, steady_load
from support.tiny_models import add_tiny_classifier, add_tiny_detector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal.client import Classification

SAMPLES = [Path(__file__).resolve().parents[2] / "samples" / name for name in ("chelsea.jpg", "coffee.jpg")]
SERVICE = """
pools:
  embedded: {models: [by-openvino]}
  default: {engine: triton}
observe: {log_level: debug}
"""
DEADLINE_SECONDS = 60.0
WORKER, TRITON = "worker-default-1", "triton-default-1"


def slots(stack: Stack) -> set[Path]:
    """The regions of the worker."""
    found = set()
    for file in Path(f"/proc/{stack.part(WORKER).pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # the worker closes files meanwhile
            found.add(file.readlink())
    return {file for file in found if file.parent == DEVICE}


def tensors(stack: Stack) -> set[Path]:
    """The memory that Triton shares with its Python models."""
    return set(DEVICE.glob(f"shoal-triton-*-{stack.part(TRITON).pid}-*"))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One pool on OpenVINO in the worker, one on a Triton."""
    root = tmp_path_factory.mktemp("triton")

    def add_models(store: Path) -> None:
        cache = root / "cache"
        build.add_model(store, *efficientnet.prepare(cache, "by-openvino"))
        model, recipe = efficientnet.prepare(cache, "by-triton")
        build.add_model(store, model, replace(recipe, runner="python"))
        add_tiny_classifier(store, runner="python")
        add_tiny_detector(store, runner="python")

    with running_stack(root / "home", models=add_models, service=SERVICE) as running:
        yield running
        used = slots(running) | tensors(running)
    assert used
    assert not any(path.exists() for path in used)


async def test_triton_is_a_part_of_the_service(stack: Stack) -> None:
    view = json.loads(stack.shoal("status", "--json").stdout)
    parts = {part["name"]: part for part in view["parts"]}
    assert (parts[TRITON]["role"], parts[TRITON]["state"]) == ("triton", "ready")
    assert await stack.metric(TRITON, "nv_inference_count_total", model="tiny") > 0  # the worker's own warm-up


async def test_it_exports_what_rules_and_dashboards_use(stack: Stack) -> None:
    """``nv_gpu_*`` comes with a GPU alone, so that its absence here says nothing."""
    async with AsyncClient(stack.target, api_key=stack.api_key, timeout_seconds=DEADLINE_SECONDS) as client:
        await client.classify(FILES["green"], "tiny")
    found = await exported(stack.part(TRITON).metrics)
    for name in (name for name, it in FOREIGN.items() if it.origin is Origin.TRITON):
        assert re.search(rf'^{name}{{model="tiny",version="1"}} ', found, re.MULTILINE), name


async def test_it_answers_as_the_embedded_engine_does(stack: Stack) -> None:
    async with AsyncClient(stack.target, api_key=stack.api_key, timeout_seconds=DEADLINE_SECONDS) as client:
        for picture in SAMPLES:
            one, other = await asyncio.gather(
                client.classify(picture, "by-openvino"), client.classify(picture, "by-triton")
            )
            assert indices(one) == indices(other)
            for mine, theirs in zip(one.classes, other.classes, strict=True):
                assert (mine.label, mine.probability) == (theirs.label, pytest.approx(theirs.probability, abs=1e-3))


def indices(answer: Classification) -> list[int]:
    return [each.index for each in answer.classes]


async def test_two_models_are_called_together(stack: Stack) -> None:
    async with AsyncClient(stack.target, api_key=stack.api_key, timeout_seconds=DEADLINE_SECONDS) as client:
        labels = [*FILES] * 10
        answers = await asyncio.gather(
            *(client.classify(FILES[label], "tiny") for label in labels),
            *(client.detect(FILES[label], "tiny-detector") for label in labels),
            *(client.classify(picture, "by-triton") for picture in SAMPLES * 5),
        )
    assert [answer.classes[0].label for answer in answers[: len(labels)]] == labels


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_no_request_is_lost_when_triton_ends(stack: Stack, number: signal.Signals) -> None:
    before = stack.part(TRITON)
    assert before.pid
    left = tensors(stack)
    assert left
    async with steady_load(stack, "tiny", rate=40, deadline_seconds=DEADLINE_SECONDS) as load:
        await load.more(40)
        os.kill(before.pid, number)
        await stack.restarted(before)
        await load.more(40)
    assert not [request.trouble for request in load.requests if request.outcome != "answered"]
    assert not any(path.exists() for path in left)


async def test_a_killed_worker_leaves_no_memory_behind(stack: Stack) -> None:
    before = stack.part(WORKER)
    left = slots(stack)
    assert left
    psutil.Process(before.pid).kill()
    await stack.restarted(before)
    assert slots(stack)
    assert not any(path.exists() for path in left)
    async with TritonClient(stack.part(TRITON).listen) as client, asyncio.timeout(DEADLINE_SECONDS):
        while {path.name for path in left} & await client.registered():  # of another process
            await asyncio.sleep(0.02)


def test_an_empty_store_gets_a_model_that_the_triton_can_run(tmp_path: Path) -> None:
    with running_stack(tmp_path, models=lambda _: None, service="pools: {default: {engine: triton}}") as stack:
        told = stack.shoal("classify", SAMPLES[0], "--model", FIRST_MODEL, "--json").stdout
        assert json.loads(told)["classes"][0]["label"] == "Egyptian cat"


async def test_a_triton_that_is_there_already_is_followed(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    add_tiny_classifier(repository, runner="python")
    async with running(repository, tmp_path / "logs") as triton:
        service = f"pools: {{default: {{engine: triton, triton_url: '{triton.url}', models: [tiny]}}}}"
        with running_stack(tmp_path / "home", models=lambda _: None, service=service) as stack:
            assert not list(stack.home.models.iterdir()), "the worker needs no files"
            async with AsyncClient(stack.target, api_key=stack.api_key, timeout_seconds=DEADLINE_SECONDS) as client:
                assert await answer(client) == ("green", 1)
                add_tiny_classifier(repository, version=2)
                control = TritonClient(triton.url)
                switching = asyncio.create_task(control.load("tiny"))
                while not switching.done():
                    assert (await answer(client))[0] == "green"
                assert await answer(client) == ("green", 2)
                await control.close()


async def answer(client: AsyncClient) -> tuple[str, int]:
    found = await client.classify(FILES["green"], "tiny")
    return found.classes[0].label, found.model_version
