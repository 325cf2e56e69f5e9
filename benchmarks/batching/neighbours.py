"""What a bad neighbour costs: broken pictures, and one whose GET never ends, through the whole service."""

from __future__ import annotations

import json
import random
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from benchmarks.batching.load import SEED
from benchmarks.batching.store_proxy import store_proxy
from benchmarks.common.files import read_pictures
from benchmarks.common.service import running, temporary_home
from shoal.client.load.generator import LoadRequest, LoadSettings, run_load
from shoal.client.load.tally import merge
from shoal.errors import ShoalError
from shoal.local.process import LocalProcess
from shoal.local.setup import LOCAL_OWNER
from shoal.local.store import create_bucket, store_part
from shoal.modelconfig.model import Task
from shoal.pictures.objectstore import Credentials, create_credentials
from shoal.runtime.percentile import milliseconds, percentile
from shoal.runtime.ports import FreePorts
from shoal.service import api_keys
from shoal.service.spec import Service

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from benchmarks.batching.options import Options
    from benchmarks.common.service import Running
    from shoal.client import AsyncClient
    from shoal.client.load.tally import LoadResult
    from shoal.client.results import Image, Result
    from shoal.modelconfig.model import ModelConfig
    from shoal.service.home import Home

MODEL = "efficientnet-lite0"
OBJECTS = 200
BAD_SHARE = 0.05
CALLERS = 32
DEADLINE_SECONDS = 5.0
LIGHT_LOAD = 0.5
"""Of what the closed loop reached, for latency."""
ROUNDS = 2
SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Pictures:
    """Uuids in the store."""

    good: Sequence[str]
    broken: Sequence[str]
    hanging: Sequence[str]

    def mixed(self, bad: Sequence[str]) -> list[str]:
        """The good ones with so many ``bad`` ones among them that they are ``BAD_SHARE``, in random order."""
        count = round(len(self.good) * BAD_SHARE / (1 - BAD_SHARE)) if bad else 0
        mix = [*self.good, *islice(cycle(bad), count)]
        random.Random(SEED).shuffle(mix)
        return mix


@dataclass(slots=True)
class Sorting:
    """A client that counts what became of the good pictures and of the others, by status."""

    client: AsyncClient
    bad: frozenset[str]
    became: dict[str, Counter[str]] = field(default_factory=lambda: {"good": Counter(), "bad": Counter()})

    async def infer(self, task: Task, image: Image, model: str, *, timeout_seconds: float | None = None) -> Result:
        """See ``AsyncClient``."""
        of = self.became["bad" if image in self.bad else "good"]
        try:
            result = await self.client.infer(task, image, model, timeout_seconds=timeout_seconds)
        except ShoalError as error:
            of[error.code.name] += 1
            raise
        of["OK"] += 1
        return result


async def measure(options: Options) -> dict[str, Any]:
    """Each stream in turns with one that has good pictures only."""
    seconds = options.window(SECONDS)
    hanging: set[str] = set()
    async with _service(hanging) as (service, model):
        bench = _Bench(service, model, seconds, options)
        async with service.client() as client:
            pictures = await _upload(client, read_pictures())
        hanging.update(pictures.hanging)
        streams = {"good only": [], "5 % broken": pictures.broken}
        closed = await bench.rounds(pictures, streams, rate=None)
        rate = LIGHT_LOAD * closed[0]["good_per_s"]
        light = await bench.rounds(pictures, {"good only": [], "5 % hanging": pictures.hanging}, rate)
    settings = {
        "model": MODEL,
        "max_batch_size": model.batching.max_batch_size,
        "max_queue_delay_ms": model.batching.max_queue_delay_microseconds / 1000,
        "instance_count": model.batching.instance_count,
        "bad_share": BAD_SHARE,
        "deadline_s": DEADLINE_SECONDS,
        "callers": CALLERS,
        "rate_per_s": round(rate, 1),
        "seconds": seconds,
        "rounds": bench.count,
    }
    return {"settings": settings, "broken": closed, "hanging": light}


class _Bench:
    """The client's side."""

    def __init__(self, service: Running, model: ModelConfig, seconds: float, options: Options) -> None:
        self.count = 1 if options.quick else ROUNDS
        self._service = service
        self._model = model
        self._seconds = seconds
        self._options = options

    async def rounds(
        self, pictures: Pictures, streams: dict[str, Sequence[str]], rate: float | None
    ) -> list[dict[str, Any]]:
        """A row a stream."""
        results: dict[str, list[LoadResult]] = {name: [] for name in streams}
        became = {name: {"good": Counter[str](), "bad": Counter[str]()} for name in streams}
        for number in range(self.count):
            for name, bad in streams.items():
                self._options.say(f"round {number + 1}, {name}, {self._seconds:g} s")
                result, sorted_out = await self._window(pictures.mixed(bad), frozenset(bad), rate)
                results[name].append(result)
                for kind, counts in sorted_out.items():
                    became[name][kind] += counts
        return [{"stream": name, **_figures(of), "became": became[name]} for name, of in results.items()]

    async def _window(
        self, images: Sequence[str], bad: frozenset[str], rate: float | None
    ) -> tuple[LoadResult, dict[str, Counter[str]]]:
        settings = LoadSettings(
            concurrency=CALLERS,
            rate=rate,
            duration_seconds=self._seconds,
            warm_up_seconds=self._options.warm_up,
            timeout_seconds=DEADLINE_SECONDS,
            seed=SEED,
        )
        async with self._service.client() as client:
            sorting = Sorting(client, bad)
            requests = [LoadRequest(Task.CLASSIFICATION, image, MODEL) for image in images]
            return await run_load(sorting, requests, settings), sorting.became


def _figures(results: Sequence[LoadResult]) -> dict[str, Any]:
    """Of the good answers."""
    whole = merge(results)
    ordered = sorted(whole.latencies)
    return {
        "good_per_s": round(sum(one.images_per_s for one in results) / len(results), 1),
        "p50_ms": milliseconds(percentile(ordered, 0.5)),
        "p99_ms": milliseconds(percentile(ordered, 0.99)),
        "mean_batch_size": round(whole.mean_batch_size, 2),
        "answers": len(ordered),
    }


async def _upload(client: AsyncClient, photographs: Sequence[bytes]) -> Pictures:
    good = await client.upload_many(islice(cycle(photographs), OBJECTS))
    broken = await client.upload_many([photographs[0][: len(photographs[0]) // 2], b"not a picture"])
    return Pictures(good, broken, await client.upload_many([photographs[0]] * 16))


@asynccontextmanager
async def _service(hanging: set[str]) -> AsyncGenerator[tuple[Running, ModelConfig]]:
    """``shoal up`` whose object store is behind a proxy."""
    with temporary_home(MODEL) as (home, model):
        ports = FreePorts()
        listen, behind = ports(), ports()
        file = home.root / "shoal.yaml"
        service = Service.model_validate(
            {"object_store": {"endpoint": f"http://{listen}", "credentials_file": str(home.store_credentials)}}
        )
        file.write_text(json.dumps(service.model_dump(exclude_defaults=True)), encoding="utf-8")
        part = store_part(behind, home.objects, _prepare(home, service))
        store = await LocalProcess.start(part, home.logs)
        try:
            await store.ready()
            async with store_proxy(listen, behind, hanging):
                with running(home, file) as found:
                    yield found, model
        finally:
            await store.stop()


def _prepare(home: Home, service: Service) -> Credentials:
    credentials = create_credentials(home.store_credentials)
    create_bucket(service.object_store, home, {api_keys.create(home.keys, LOCAL_OWNER).prefix})
    return credentials
