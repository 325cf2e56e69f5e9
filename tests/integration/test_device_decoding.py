"""Models that decode JPEGs themselves, in a real Triton: a Python model that does with Pillow what a GPU's does."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import psutil
import pytest
from PIL import Image

from shoal.client import AsyncClient
from shoal.engine import probe
from shoal.engine.triton import encoded_rows
from shoal.engine.triton.engine import TritonEngine
from shoal.engine.triton.shared_memory import DEVICE
from shoal.errors import Internal, InvalidRequest
from shoal.local.running_triton import running
from shoal.modelconfig.model import Task
from shoal.modelstore.making import build, ensemble, runners
from shoal.modelstore.making.recipe import Recipe
from shoal.pictures.decode import Decoder
from shoal.service.spec import Service
from shoal.triton.client import TritonClient
from shoal.worker.device_rows import jpeg_row
from shoal.worker.store_source import StoreSource
from support import decoding_rows
from support.decoding_model import POISON, add_decoding_classifier, seen, write_decoder
from support.pictures import encode, quadrants
from support.python_model import add_python_classifier
from support.stack import Stack, running_stack
from support.steady_load import FILES, steady_load
from support.tiny_models import BATCHING, COLOURS, classifier

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shoal.client import Classification
    from shoal.engine.triton.model import TritonModel
    from shoal.modelconfig.model import ModelConfig

SERVICE = """
pools:
  default: {engine: triton, decode: gpu}
  cores: {engine: triton, decode: cpu, models: [decodes-here]}
"""
WORKER, TRITON = "worker-default-1", "triton-default-1"
DEADLINE_SECONDS = 60.0
JPEG, PIXELS = encoded_rows.JPEG, encoded_rows.PIXELS
PICTURES = {
    "baseline": encode(quadrants(90, 60)),
    "444": encode(quadrants(90, 61), subsampling=0),
    "grey": encode(quadrants(64, 64).convert("L")),
    "restarts": encode(quadrants(200, 100), restart_marker_blocks=2),
    "progressive": encode(quadrants(90, 60), progressive=True),
    "cmyk": encode(quadrants(90, 60).convert("CMYK")),
    "png": encode(quadrants(90, 60), "PNG"),
    "webp": encode(quadrants(90, 60), "WEBP"),
    "refused": encode(quadrants(90, 60), comment=decoding_rows.REFUSED),
    **{f"turned {turn}": encode(quadrants(90, 60), orientation=turn) for turn in range(2, 9)},
}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("decodes")


@pytest.fixture(scope="module")
def stack(scratch: Path) -> Iterator[Stack]:
    """Two pools: one whose models may decode, and one whose worker decodes for the same model."""

    def add_models(store: Path) -> None:
        add_decoding_classifier(store, scratch)
        add_decoding_classifier(store, scratch / "here", "decodes-here")
        add_python_classifier(store, scratch / "plain", "tiny")

    with running_stack(scratch / "home", models=add_models, service=SERVICE) as running_:
        yield running_


def shares(answer: Classification) -> list[float]:
    return [each.probability for each in sorted(answer.classes, key=lambda each: each.index)]


async def test_answers_are_those_of_pictures_that_the_worker_decoded(stack: Stack, scratch: Path) -> None:
    async with AsyncClient(stack.target, api_key=stack.api_key, timeout_seconds=DEADLINE_SECONDS) as client:
        there, here = await asyncio.gather(
            asyncio.gather(*(client.classify(each, "decodes") for each in list(PICTURES.values()) * 3)),
            asyncio.gather(*(client.classify(each, "decodes-here") for each in list(PICTURES.values()) * 3)),
        )
    for one, other in zip(there, here, strict=True):
        assert shares(one) == pytest.approx(shares(other), abs=0.02)
    rows = [row for batch in seen(scratch) for row in batch]
    plain = 3 * (len(PICTURES) - 4)
    assert plain / 2 < rows.count(JPEG) <= plain  # what comes after its batch was closed is decoded here
    assert not any(JPEG in batch for batch in seen(scratch / "here"))
    assert any(set(batch) == {JPEG, PIXELS} for batch in seen(scratch)), "no batch was a mixed one"
    assert await stack.metric(WORKER, "shoal_worker_decodes_total", way="device") >= 30
    assert await stack.metric(WORKER, "shoal_worker_device_decode_seconds_count", model="decodes") > 0


async def test_broken_pictures_fail_alone(stack: Stack) -> None:
    baseline = PICTURES["baseline"]
    broken = [baseline[:-300], baseline[:60], b"no picture", PICTURES["progressive"][:-300], PICTURES["png"][:-90]]
    async with AsyncClient(stack.target, api_key=stack.api_key, timeout_seconds=DEADLINE_SECONDS) as client:
        pictures = [each for pair in zip(broken, [*FILES.values(), FILES["red"]], strict=True) for each in pair]
        calls = [client.classify(each, "decodes") for each in pictures]
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(each, InvalidRequest) for each in answers[::2])
    assert [each.classes[0].label for each in answers[1::2]] == [*FILES, "red"]  # type: ignore[union-attr]


async def test_a_batch_that_the_runner_can_not_execute_fails_picture_by_picture(stack: Stack) -> None:
    poison = encode(Image.new("RGB", (32, 32), (POISON,) * 3))
    async with AsyncClient(stack.target, api_key=stack.api_key, timeout_seconds=DEADLINE_SECONDS) as client:
        calls = [client.classify(each, "decodes") for each in (poison, *FILES.values())]
        first, *others = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(first, Internal)
    assert [each.classes[0].label for each in others] == list(FILES)  # type: ignore[union-attr]


async def test_a_model_that_decodes_and_one_that_does_not_are_called_together(stack: Stack) -> None:
    async with AsyncClient(stack.target, api_key=stack.api_key, timeout_seconds=DEADLINE_SECONDS) as client:
        labels = [*FILES] * 10
        calls = [client.classify(FILES[label], model) for label in labels for model in ("decodes", "tiny")]
        answers = await asyncio.gather(*calls)
    assert [answer.classes[0].label for answer in answers] == [label for label in labels for _ in range(2)]
    log = next(stack.home.root.rglob(f"{WORKER}*.log")).read_text()
    assert "model tiny: its pictures are decoded in the worker: the model takes no encoded_rows" in log
    assert "model decodes: its pictures" not in log


async def test_explain_shows_the_way(stack: Stack) -> None:
    async with AsyncClient(stack.target, api_key=stack.api_key, timeout_seconds=DEADLINE_SECONDS) as client:
        plain, refused = [await client.classify(PICTURES[name], "decodes") for name in ("baseline", "refused")]
    assert "the model's device decoded it" in stack.shoal("explain", plain.image_uuid).stdout
    told = stack.shoal("explain", refused.image_uuid).stdout
    assert "the model's device couldn't decode it, so the worker did" in told
    assert '"decoded_by": "device"' in stack.shoal("explain", plain.image_uuid, "--json").stdout


async def test_no_request_is_lost_when_triton_is_killed(stack: Stack) -> None:
    before = stack.part(TRITON)
    assert before.pid
    async with steady_load(stack, "decodes", rate=40, deadline_seconds=DEADLINE_SECONDS) as load:
        await load.more(40)
        os.kill(before.pid, signal.SIGKILL)
        await stack.restarted(before)
        await load.more(40)
    assert not [request.trouble for request in load.requests if request.outcome != "answered"]


async def test_a_killed_worker_leaves_no_memory_behind(stack: Stack) -> None:
    before = stack.part(WORKER)
    psutil.Process(before.pid).kill()
    await stack.restarted(before)
    async with AsyncClient(stack.target, api_key=stack.api_key, timeout_seconds=DEADLINE_SECONDS) as client:
        assert (await client.classify(FILES["red"], "decodes")).classes[0].label == "red"


async def ask(loaded: TritonModel, decoder: Decoder, *pictures: bytes) -> tuple[list[int], list[int]]:
    """The classes and the statuses of JPEGs, as one batch; between them lie pixels, all blue."""
    slot = await loaded.acquire()
    try:
        for number, picture in enumerate(pictures):
            header = decoder.device_header(picture)
            assert header is not None
            row = jpeg_row(header, decoder.whole_job(header))
            assert slot.put_jpeg(2 * number, picture, row)  # type: ignore[attr-defined]
            slot.row(2 * number + 1)[...] = (0, 0, 255)
        inference = await loaded.infer(slot, 2 * len(pictures))
    finally:
        loaded.release(slot)
    assert inference.reports is not None
    assert (inference.reports[:, 2:] > 0).all()
    return inference.outputs["logits"].argmax(axis=1).tolist(), inference.reports[:, 0].tolist()


def no_room(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("memory", ["shared", "none", "full"])
async def test_jpegs_travel_whatever_memory_there_is(
    tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (store := tmp_path / "models").mkdir()
    config = add_decoding_classifier(store, tmp_path / "scratch")
    source = StoreSource(store, Service(), "default")
    async with running(store, tmp_path / "logs") as triton:
        if memory == "full":
            monkeypatch.setattr(os, "posix_fallocate", no_room)
        engine = TritonEngine(TritonClient(triton.url), source.describe, exclusive=True, shares_memory=memory != "none")
        probed = await probe.load(engine, config)
        assert (probed.alone_because, probed.model.config) == ("", config)
        assert config.batching.instance_count == 2
        decoder = Decoder(config, max_pixels=10**6, max_scans=1)
        for _ in range(3):
            assert await ask(probed.model, decoder, FILES["red"], FILES["green"]) == ([0, 2, 1, 2], [0] * 4)
        classes, statuses = await ask(probed.model, decoder, PICTURES["refused"], FILES["green"])
        assert (classes[1:], statuses) == ([2, 1, 2], [1, 0, 0, 0])
        regions = await engine.client.registered()
        assert len(regions) == (1 if memory == "shared" else 0)
        assert caplog.text.count("no shared memory for batches") == (memory == "full")
        await engine.close()
        assert not any((DEVICE / name).exists() for name in regions)


async def test_an_ensemble_decodes_before_a_model_of_another_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here both steps run in the Python backend, which is all that there is."""
    (store := tmp_path / "models").mkdir()
    write_decoder(tmp_path / "runner")
    monkeypatch.setattr(runners, "GPU_FOLDER", tmp_path / "runner")
    recipe = Recipe(name="whole", task=Task.CLASSIFICATION, labels=COLOURS, batching=BATCHING)

    def add_step(alone: Recipe) -> ModelConfig:
        return build.add_model(store, classifier(), replace(alone, runner="python"))

    config = ensemble.add(store, recipe, add_step, version=None, force=False)
    assert (config.backend, config.encoded, config.labels) == ("ensemble", True, COLOURS)
    source = StoreSource(store, Service(), "default")
    assert list(await source.offers()) == ["whole"]
    async with running(store, tmp_path / "logs") as triton:
        engine = TritonEngine(TritonClient(triton.url), source.describe, exclusive=True)
        wider = replace(config, batching=replace(config.batching, instance_count=3))
        loaded = (await probe.load(engine, wider)).model
        decoder = Decoder(config, max_pixels=10**6, max_scans=1)
        assert await ask(loaded, decoder, FILES["red"], FILES["green"]) == ([0, 2, 1, 2], [0] * 4)
        classes, statuses = await ask(loaded, decoder, PICTURES["refused"], FILES["green"])
        assert (classes[1:], statuses) == ([2, 1, 2], [1, 0, 0, 0])
        assert all((await engine.client.versions()).values())
        await loaded.close()
        assert not any((await engine.client.versions()).values()), "its steps stay"
        await engine.close()


async def test_a_triton_that_is_there_already_tells_of_it(tmp_path: Path) -> None:
    repository, scratch = tmp_path / "models", tmp_path / "scratch"
    add_decoding_classifier(repository, scratch)
    async with running(repository, tmp_path / "logs") as triton:
        service = f"pools: {{default: {{engine: triton, triton_url: '{triton.url}', models: [decodes]}}}}"
        with running_stack(tmp_path / "home", models=lambda _: None, service=service) as stack:
            async with AsyncClient(stack.target, api_key=stack.api_key, timeout_seconds=DEADLINE_SECONDS) as client:
                answers = await asyncio.gather(*(client.classify(file, "decodes") for file in FILES.values()))
            assert [answer.classes[0].label for answer in answers] == list(FILES)
            assert any(JPEG in batch for batch in seen(scratch))
            check = stack.shoal("model", "check", "decodes", "--triton", triton.url, "--store", repository)
            assert check.stdout.endswith("decodes: good\n")
            profile = (
                "profile",
                "decodes",
                "--triton",
                triton.url,
                "--batch",
                "4",
                "--concurrency",
                "1",
                "--rounds",
                "1",
            )
            assert "decodes" in stack.shoal(*profile, "--duration", "0.2", "--output", scratch / "profile").stdout


def test_decoders_agree_about_every_picture() -> None:
    """The stand-in for the device is as near to the worker's decoder as the chapter says of the real one."""
    from support.pictures import config

    settings = config(height=32, width=32)
    decoder = Decoder(settings, max_pixels=10**6, max_scans=1)
    for picture in PICTURES.values():
        if (header := decoder.device_header(picture)) is None or decoding_rows.REFUSED in picture:
            continue
        content = np.zeros((1, 64 + encoded_rows.aligned(len(picture))), np.uint8)
        row = jpeg_row(header, decoder.whole_job(header))
        encoded_rows.table(content, 1)[0] = encoded_rows.jpeg_entry(64, len(picture), row)
        content[0, 64 : 64 + len(picture)] = np.frombuffer(picture, np.uint8)
        pixels, statuses = decoding_rows.decode(content, settings.input.shape, "uint8")
        here = np.zeros(settings.input.shape, np.uint8)
        decoder.decode(picture, here)
        assert statuses.tolist() == [0]
        assert np.abs(pixels[0].astype(int) - here).max() <= 2
