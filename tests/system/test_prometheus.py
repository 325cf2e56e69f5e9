"""A real Prometheus watches a real service while its load grows from little to too much."""

from __future__ import annotations

import asyncio
import json
import random
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from PIL import Image
from ruamel.yaml import YAML

from benchmarks.observing.boards import Board, Panel, Target, boards
from benchmarks.observing.load import callers
from benchmarks.observing.prometheus import Prometheus, watching
from benchmarks.pipelines.models import CLASSIFIER, DETECTOR, PIPELINE
from benchmarks.pipelines.models import add_models as add_pipeline_models
from shoal.client import AsyncClient
from shoal.errors import NotFound
from shoal.local.scrape import LOCAL
from shoal.observe.ruleset import ALERTS, RECORDINGS, needs, to_yaml
from shoal.plan.prometheus import fetch
from shoal.service.kubernetes_monitoring import PoolScale
from shoal.simulate import stages
from support.model_sync import model_sync
from support.pictures import encode
from support.s3 import running_s3
from support.stack import running_stack, shoal
from support.tiny_models import BATCHING, add_slow_classifier, add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from shoal.observe.rules import Condition, Recording
    from support.model_sync import Sync

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "slow"
QUEUE = 48
SERVICE = f"""
models:
  {MODEL}: {{max_queue_size: {QUEUE}}}
  {CLASSIFIER}: {{cache_seconds: 60}}
pipelines:
  {PIPELINE.format(1)}: {{detect: {{model: {DETECTOR.format(1)}}}, then: [{{model: {CLASSIFIER}}}]}}
"""
CALLERS_BUSY = 2 * BATCHING.max_batch_size * (BATCHING.instance_count + 1)
"""Twice what is at work at once: the rest waits, and the queue has room for all of it, so none is refused."""
CALLERS_TOO_MANY = CALLERS_BUSY + 3 * QUEUE
LIMIT_SECONDS = 240
DEMAND = f'shoal:pool_slot_demand:ratio{{service="{LOCAL}", pool="default"}}'
TARGET = PoolScale.model_fields["slot_demand"].default
SEEN = f"count_over_time(({DEMAND} > {TARGET})[10s:1s]) >= 8"
"""Whoever scales and asks every ten scrapes has seen it."""
REFUSED = f'sum(shoal_batcher_requests_total{{model="{MODEL}", code="RESOURCE_EXHAUSTED"}}) > 0'
FIRING = 'ALERTS{{alertname="{}", alertstate="firing"}}'

BOARDS = boards(service=LOCAL, model=f"{MODEL}|{CLASSIFIER}", pool="default", pipeline=PIPELINE.format(1), __range="5m")
TARGETS = [
    pytest.param(board, panel, target, id=f"{board.name}: {panel.title}: {target.legend}")
    for board in BOARDS
    for panel in board.panels
    for target in panel.targets
]


@dataclass(frozen=True)
class Watched:
    """What is left of the run: a Prometheus that saw all of it, with the service still there."""

    prometheus: Prometheus
    start: float
    end: float


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    folder = tmp_path_factory.mktemp("prometheus")
    with running_stack(folder / "home", models=add_models, service=SERVICE) as stack:
        stack.shoal("render", "prometheus", "--output", folder, "--scrape-interval", 1)
        async with (
            synced(folder) as sync,
            watching(with_model_sync(folder / "prometheus.yml", sync), folder / "data") as prometheus,
            AsyncClient(stack.target, api_key=stack.api_key, timeout_seconds=60) as client,
        ):
            start = (await prometheus.now("time()"))[0].points[0][0]
            image = await client.upload(encode(Image.new("RGB", (64, 48), (250, 0, 0))))
            with pytest.raises(NotFound):
                await client.classify(str(uuid.uuid4()), MODEL)
            await some_of_each(client, image)
            async with callers(client, MODEL, [image]) as load:
                await load.set(CALLERS_BUSY)
                await prometheus.until(SEEN, LIMIT_SECONDS)
                await some_of_each(client, image)  # a rate needs a second time
                await load.set(CALLERS_TOO_MANY)
                await prometheus.until(FIRING.format("ShoalOverloaded"), LIMIT_SECONDS)
            end = (await prometheus.now("time()"))[0].points[0][0]
            yield Watched(prometheus, start, end)


def add_models(store: Path) -> None:
    add_slow_classifier(store)
    add_pipeline_models(store, (1,))


async def some_of_each(client: AsyncClient, image: str) -> None:
    """Of what the load has none of: bulk, known answers, a pipeline, and one that fails."""
    await client.classify(image, MODEL, priority="bulk")
    for _ in range(2):
        await client.analyze(image, PIPELINE.format(1))
    with pytest.raises(NotFound):
        await client.analyze(str(uuid.uuid4()), PIPELINE.format(1))


@asynccontextmanager
async def synced(folder: Path) -> AsyncIterator[Sync]:
    """A model-sync, which ``shoal up`` has none of, over a store with one published model."""
    with running_s3(folder / "s3", "models") as server:
        access = ("--endpoint", server.address, "--credentials-file", server.credentials_file)
        add_tiny_classifier(folder / "local")
        shoal(folder / "builder", "model", "push", "tiny", server.url, *access, "--store", folder / "local")
        store = {
            "path": str(folder / "volume" / "models"),
            "url": server.url,
            "endpoint": server.address,
            "credentials_file": str(server.credentials_file),
        }
        file = folder / "model-sync.yaml"
        file.write_text(json.dumps({"model_store": store}))
        async with model_sync(file) as sync:
            yield sync


def with_model_sync(file: Path, sync: Sync) -> Path:
    """Adds the target, with the labels that a PodMonitor gives it."""
    made = YAML(typ="safe").load(file.read_text())
    labels = {"service": LOCAL, "component": "model-sync", "pool": "default", "instance": "worker"}
    target = {"targets": [str(sync.metrics)], "labels": labels}
    made["scrape_configs"].append({"job_name": "model-sync", "static_configs": [target]})
    file.write_text(to_yaml(made))
    return file


async def test_every_part_is_scraped(watched: Watched) -> None:
    found = await watched.prometheus.now(f'up{{service="{LOCAL}"}}')
    assert {(it.labels["component"], it.labels.get("pool", ""), it.labels.get("batcher", "")) for it in found} == {
        ("router", "", ""),
        ("batcher", "", "shared"),
        ("worker", "default", ""),
        ("model-sync", "default", ""),
        ("pipeline", "", ""),
    }
    assert all(it.points[-1][1] == 1 for it in found)


@pytest.mark.parametrize(("board", "panel", "target"), TARGETS)
async def test_every_query_of_every_panel_has_data(
    watched: Watched, board: Board, panel: Panel, target: Target
) -> None:
    await check(watched, target.expr)


@pytest.mark.parametrize("rule", RECORDINGS, ids=lambda rule: rule.record)
async def test_every_recorded_signal_has_data(watched: Watched, rule: Recording) -> None:
    await check(watched, rule.record)


@pytest.mark.parametrize(
    "condition",
    [pytest.param(each, id=f"{alert.name}: {each.signal}") for alert in ALERTS for each in alert.conditions],
)
async def test_what_every_alert_looks_at_has_data(watched: Watched, condition: Condition) -> None:
    await check(watched, condition.signal)


async def test_too_much_load_fires_the_alert_and_nothing_else_is_critical(watched: Watched) -> None:
    fired = await watched.prometheus.now('ALERTS{alertstate="firing", severity="critical"}')
    assert {it.labels["alertname"] for it in fired} >= {"ShoalOverloaded"}
    assert not {it.labels["alertname"] for it in fired} & {
        *("ShoalFailing", "ShoalRouterFailing", "ShoalStoreFailing"),
        *("ShoalPoolAway", "ShoalBatcherAway", "ShoalRouterAway"),
    }


async def test_autoscaling_would_act_before_the_first_refusal(watched: Watched) -> None:
    crossed = await first(watched, f"{DEMAND} > {TARGET}")
    refused = await first(watched, REFUSED)
    assert watched.start <= crossed < refused


async def test_the_demand_says_how_many_replicas_too_few_there_are(watched: Watched) -> None:
    (demand,) = await watched.prometheus.over(DEMAND, watched.start, watched.end, 1)
    assert max(value for _, value in demand.points) > 1


async def check(watched: Watched, expression: str) -> None:
    """Fails unless ``expression`` gave something in the run; skips what needs more than this machine has."""
    if missing := needs(expression):
        pytest.skip(f"needs {' and '.join(sorted(missing))}: see test_prometheus_triton")
    if "shoal_worker_device_" in expression:
        pytest.skip("needs a model that decodes: see test_device_decoding")
    found = await watched.prometheus.over(expression, watched.start, watched.end, 1)
    assert any(series.points for series in found)


async def first(watched: Watched, expression: str) -> float:
    """The Unix time at which ``expression`` first gave something."""
    found = await watched.prometheus.over(expression, watched.start, watched.end, 1)
    return min(series.points[0][0] for series in found)


async def test_a_plan_takes_the_load_and_the_stages_from_it(watched: Watched) -> None:
    url = watched.prometheus.url
    next_hour = (watched.end // 3600 + 1) * 3600  # of an hour that isn't over, Prometheus tells what it has seen yet
    history = await asyncio.to_thread(fetch, url, 1, lambda: next_hour)
    assert await ended(watched) == pytest.approx(sum(history.rates[MODEL].values()) * 3600, rel=0.25)  # extrapolated
    prepare = (await asyncio.to_thread(stages.read, [url]))[MODEL]
    source = random.Random(1)
    drawn = fmean(prepare.draw(source) for _ in range(5000))
    means = [await mean(watched, stage) for stage in (stages.FETCH, stages.DECODE)]
    assert drawn == pytest.approx(sum(means), rel=0.5)  # buckets double in width


async def ended(watched: Watched) -> float:
    """Requests until now."""
    (found,) = await watched.prometheus.now(f'sum(shoal_batcher_requests_total{{model="{MODEL}"}})')
    return found.points[-1][1]


async def mean(watched: Watched, stage: str) -> float:
    """Seconds of a picture."""
    told = f'{stage}_sum{{model="{MODEL}"}} / {stage}_count{{model="{MODEL}"}}'
    (found,) = await watched.prometheus.now(told)
    return found.points[-1][1]
