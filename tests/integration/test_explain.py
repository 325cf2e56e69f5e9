"""``shoal explain`` on the running service: what it says agrees with the replies and with the model's settings."""

from __future__ import annotations

import asyncio
import json
import math
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import aiohttp
import pytest
from PIL import Image

from shoal.client import AsyncClient
from shoal.errors import NotFound
from shoal.explain.views import Answer
from shoal.runtime.threads import usable_cores
from support.pictures import encode
from support.stack import Stack, running_stack
from support.tiny_models import BATCHING, add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

REMEMBERED = 12
RED = encode(Image.new("RGB", (64, 48), (250, 0, 0)))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two workers, and a short memory."""
    service = f"pools: {{default: {{replicas: 2}}}}\nobserve: {{recent_requests: {REMEMBERED}}}\n"
    root: Path = tmp_path_factory.mktemp("explain") / "home"
    with running_stack(root, models=add_tiny_classifier, service=service) as running:
        yield running


@pytest.fixture
async def client(own: Stack) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(own.target, api_key=own.api_key, timeout_seconds=60) as made:
        yield made


def explained(stack: Stack, image_uuid: str) -> dict[str, Any]:
    done = stack.shoal("explain", image_uuid, "--json")
    assert stack.api_key not in done.stdout + done.stderr
    (request,) = json.loads(done.stdout)["requests"]
    found: dict[str, Any] = request
    return found


async def test_it_agrees_with_the_reply_and_the_models_settings(own: Stack, client: AsyncClient) -> None:
    uuids = [await client.upload(RED) for _ in range(5)]
    results = await asyncio.gather(*(client.classify(name, "tiny") for name in uuids))
    for name, result in zip(uuids, results, strict=True):
        request = explained(own, name)
        batcher, worker, timing = request["batcher"], request["worker"], result.timing
        assert (batcher["code"], batcher["method"]) == ("OK", "/shoal.v1.Inference/Classify")
        assert worker["batch_size"] == batcher["batch"]["size"] == timing.batch_size
        assert batcher["batch"]["max_queue_delay_microseconds"] == BATCHING.max_queue_delay_microseconds
        assert batcher["batch"]["max_batch_size"] == BATCHING.max_batch_size
        full = timing.batch_size in (BATCHING.preferred_batch_size or (BATCHING.max_batch_size,))
        assert batcher["batch"]["closed_because"] == ("preferred" if full else "delay")
        assert worker["stage_seconds"]["compute"] == pytest.approx(timing.compute_us / 1e6, abs=2e-6)
        assert worker["stage_seconds"]["decode"] == pytest.approx(timing.decode_us / 1e6, abs=2e-6)
        assert worker["stage_seconds"]["fetch"] >= timing.fetch_us / 1e6
        assert sum(request["stage_seconds"].values()) == pytest.approx(request["total_seconds"])
        assert request["total_seconds"] <= timing.total_us / 1e6


async def test_both_workers_count_on_half_the_cores(own: Stack) -> None:
    threads = [await own.metric(f"worker-default-{number}", "shoal_worker_decode_threads") for number in (1, 2)]
    assert threads == [math.ceil(usable_cores() / 2)] * 2


async def test_a_picture_that_is_not_there_is_explained_too(own: Stack, client: AsyncClient) -> None:
    missing = str(uuid4())
    with pytest.raises(NotFound):
        await client.classify(missing, "tiny")
    done = own.shoal("explain", missing)
    assert "answered NOT_FOUND" in done.stdout
    assert "it never reached the engine" in done.stdout
    assert "fetching the picture" in done.stdout


async def test_two_calls_for_one_picture_are_two_stories(own: Stack, client: AsyncClient) -> None:
    name = await client.upload(RED)
    for _ in range(2):
        await client.classify(name, "tiny")
    requests = json.loads(own.shoal("explain", name, "--json").stdout)["requests"]
    assert len(requests) == 2
    assert requests[0]["seconds_ago"] < requests[1]["seconds_ago"]
    assert all(request["batcher"]["sent_as"] == request["worker"]["sent_as"] for request in requests)


async def test_the_oldest_is_forgotten(own: Stack, client: AsyncClient) -> None:
    name, other = await client.upload(RED), await client.upload(RED)
    await client.classify(name, "tiny")
    for _ in range(REMEMBERED - 1):
        await client.classify(other, "tiny")
    assert explained(own, name)["batcher"]
    await client.classify(other, "tiny")
    batcher = own.part("batcher-shared-1").metrics
    assert batcher
    asked = batcher.replace("/metrics", f"/requests/{name}")
    async with aiohttp.ClientSession() as session, session.get(asked) as response:
        assert response.status == 404
        answer = Answer.model_validate_json(await response.text())
    assert (answer.memory.requests, answer.memory.limit) == (REMEMBERED, REMEMBERED)


def test_one_that_never_came_is_not_known(own: Stack) -> None:
    done = own.shoal("explain", uuid4(), check=False)
    assert done.returncode == 1
    assert "batcher-shared-1 remembers" in done.stderr
    assert "worker-default-2 remembers" in done.stderr
