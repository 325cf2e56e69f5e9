"""The metrics contract against what the running parts export, and that callers make no series."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest
from generate_observability import COMPONENTS, declared, exported_name
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from shoal.batcher.meter import STRANGER
from shoal.client import AsyncClient
from shoal.errors import Code, NotFound, ShoalError
from shoal.modelstore.publishing.remote import Remote
from shoal.observe.foreign import FOREIGN, Origin
from shoal.service.spec import ObjectStore
from shoal.v1 import inference_pb2 as pb
from support.metrics import exported
from support.pictures import encode
from support.ports import free
from support.raw_calls import Call, raw_client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prometheus_client import Metric

    from support.stack import Stack

PARTS = {"batcher": "batcher-shared-1", "worker": "worker-default-1"}
INVENTED = "invented-by-a-caller"
_PATIENCE_SECONDS = 60.0


def families(text: str) -> dict[str, Metric]:
    """By name, as PromQL has it."""
    found = text_string_to_metric_families(text)
    return {f"{each.name}_total" if each.type == "counter" else each.name: each for each in found}


def ours(text: str) -> dict[str, Metric]:
    return {name: each for name, each in families(text).items() if name.startswith("shoal_")}


@pytest.fixture
async def client(stack: Stack) -> AsyncClient:
    async with AsyncClient(stack.target, api_key=stack.api_key, timeout_seconds=60) as made:
        yield made


@pytest.fixture
async def image(client: AsyncClient) -> str:
    return await client.upload(encode(Image.new("RGB", (64, 48), (250, 0, 0))))


@pytest.mark.parametrize("component", PARTS)
async def test_a_part_exports_what_the_table_says_and_nothing_else(
    stack: Stack, client: AsyncClient, image: str, component: str
) -> None:
    await client.classify(image, "tiny")
    found = ours(await exported(stack.part(PARTS[component]).metrics))
    assert set(found) == {exported_name(metric) for metric in declared(COMPONENTS[component])}
    assert [name for name, family in found.items() if not family.samples] == []
    for metric in declared(COMPONENTS[component]):
        (family,) = metric.describe()
        there = found[exported_name(metric)]
        assert (there.type, there.documentation) == (family.type, family.documentation)
        labels = {label for sample in there.samples for label in sample.labels} - {"le"}
        assert labels == set(metric._labelnames)


async def test_what_is_measured_is_what_happened(stack: Stack, client: AsyncClient, image: str) -> None:
    names = {
        "batcher": ("shoal_batcher_request_bytes_total", "shoal_batcher_answer_bytes_total"),
        "worker": ("shoal_worker_tensor_bytes_total", "shoal_worker_fetch_bytes_sum"),
    }

    async def counted() -> list[float]:
        parts = [(PARTS[component], name) for component in names for name in names[component]]
        return [await stack.metric(part, name, model="tiny") for part, name in parts]

    before = await counted()
    await client.classify(image, "tiny")
    references, answers, tensors, pictures = (now - then for now, then in zip(await counted(), before, strict=True))
    request = pb.ImageRequest(api_key=stack.api_key, image_uuid=image, model_name="tiny")
    assert request.ByteSize() <= references < 2 * request.ByteSize()
    assert answers > 0
    assert tensors == 32 * 32 * 3
    assert pictures == len(encode(Image.new("RGB", (64, 48), (250, 0, 0))))


async def test_a_fetch_is_counted_by_its_outcome(stack: Stack, client: AsyncClient) -> None:
    async def missing() -> float:
        return await stack.metric(PARTS["worker"], "shoal_worker_fetches_total", model="tiny", code="NOT_FOUND")

    before = await missing()
    with pytest.raises(NotFound):
        await client.classify(str(uuid.uuid4()), "tiny")
    assert await missing() == before + 1


async def test_what_callers_invent_makes_no_series(stack: Stack, client: AsyncClient, image: str) -> None:
    await client.classify(image, "tiny")
    names = [stack.part(part).metrics for part in (*PARTS.values(), "router")]
    before = [series(await exported(url)) for url in names]
    message = pb.ImageRequest(api_key=INVENTED, image_uuid=INVENTED, model_name=INVENTED).SerializeToString()
    async with raw_client(stack.target) as raw:
        for key in (INVENTED, stack.api_key):
            for model, method in ((INVENTED, "Classify"), ("tiny", "Classify"), ("tiny", "Detect")):
                assert (await raw.send(Call(message, key, model, method))).code != Code.OK
    for image_uuid in (INVENTED, str(uuid.uuid4())):
        with pytest.raises(ShoalError):
            await client.classify(image_uuid, "tiny")
    after = [await exported(url) for url in names]
    assert not [text for text in after if INVENTED in text]
    assert [series(text) - known for text, known in zip(after[:2], before, strict=False)] == [set(), set()]


async def test_a_model_that_no_worker_has_gets_no_series_even_past_the_router(stack: Stack) -> None:
    part = stack.part(PARTS["batcher"])
    async with raw_client(part.listen) as raw:
        answer = await raw.send(Call(b"", None, INVENTED))
    assert answer.code == Code.NOT_FOUND
    assert INVENTED not in await exported(part.metrics)
    assert await stack.metric(part.name, "shoal_batcher_requests_total", model="-", code="NOT_FOUND") >= 1


async def test_a_refused_method_leaves_the_models_gauges_alone(stack: Stack, client: AsyncClient, image: str) -> None:
    await client.classify(image, "tiny")
    with pytest.raises(ShoalError):
        await client.detect(image, "tiny")
    await client.classify(image, "tiny")
    assert await stack.metric(PARTS["batcher"], "shoal_batcher_streams", model="tiny") >= 1


async def test_the_router_exports_what_rules_and_dashboards_use(stack: Stack, client: AsyncClient, image: str) -> None:
    await client.classify(image, "tiny")
    found = families(await exported(stack.part("router").metrics))
    exported_names = {*found, *(name.removesuffix("_total") for name in found)}
    wanted = {name: it for name, it in FOREIGN.items() if it.origin is Origin.ENVOY}
    assert [name for name in wanted if name not in exported_names] == []
    clusters = {sample.labels["envoy_cluster_name"] for sample in found["envoy_cluster_membership_healthy"].samples}
    assert {"pool/default", "batcher/shared"} <= clusters


async def test_model_sync_exports_what_the_table_says_and_nothing_else(tmp_path: Path) -> None:
    published = tmp_path / "published"
    published.mkdir()
    Remote.open(ObjectStore(url=f"file://{published}"))
    with model_sync(tmp_path, f"file://{published}") as url:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not (found := await _looked(url)):  # of another process
                await asyncio.sleep(0.05)
    assert set(found) == {exported_name(metric) for metric in declared(COMPONENTS["model-sync"])}


async def _looked(url: str) -> dict[str, Metric] | None:
    """What it exports once it has looked at the store."""
    try:
        found = ours(await exported(url))
    except aiohttp.ClientConnectionError:
        return None
    return found if found["shoal_model_sync_looks_total"].samples else None


@contextmanager
def model_sync(root: Path, store: str) -> Iterator[str]:
    """A running model-sync; the address of its metrics."""
    file = root / "shoal.yaml"
    file.write_text(f"model_store: {{path: {root / 'models'}, url: '{store}'}}\n")
    metrics = free()
    process = subprocess.Popen(
        [sys.executable, "-m", "shoal", "serve", "model-sync", "--service", file, "--metrics", str(metrics)],
        env={**os.environ, "SHOAL_HOME": str(root / "home")},
    )
    try:
        yield f"http://{metrics}/metrics"
    finally:
        process.terminate()
        process.wait(_PATIENCE_SECONDS)


def series(text: str) -> set[str]:
    """Names and labels, of models that there are."""
    found = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    counted = (
        sample for sample in found if sample.name.startswith("shoal_") and sample.labels.get("model") != STRANGER
    )
    return {f"{sample.name}{sorted(sample.labels.items())}" for sample in counted}
