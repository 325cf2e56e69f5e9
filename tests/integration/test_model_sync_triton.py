"""The model store beside a real Triton in explicit mode: versions come and go under load, and no request fails."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from shoal.local.running_triton import running
from shoal.modelstore.compare import compare
from shoal.modelstore.publishing.mirror import Mirror
from shoal.modelstore.publishing.sync import Synchronizer
from shoal.triton.client import TritonClient
from shoal.triton.fetch_server import fetch
from shoal.triton.installation import default_folder
from support.published import Bucket
from support.python_model import MODEL, add_python_classifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CALLERS = 4
PATIENCE_SECONDS = 60
RED = np.zeros((1, 32, 32, 3), np.uint8)
RED[..., 0] = 250


class Place:
    """What is pushed, the repository, and the Triton that serves it."""

    def __init__(self, root: Path, url: str, server: TritonClient, mirror: Mirror) -> None:
        self._scratch = root / "scratch"
        self.bucket = Bucket(root / "local")
        self.mirror = mirror
        self.url = url
        self.server = server
        self.sync = Synchronizer(self.bucket.remote, mirror, selects=lambda models: models, control=server, remove=True)

    async def publish(self, version: int, code: str = MODEL) -> None:
        add_python_classifier(self.bucket.local, self._scratch, version=version, code=code)
        await self.bucket.push()

    async def differences(self) -> list[str]:
        return [str(fault) for fault in (await compare(self.mirror.repository / "tiny", self.server)).faults]

    async def ready(self) -> list[int]:
        return [one.version for one in (await self.server.index()).get("tiny", ()) if one.ready]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    await asyncio.to_thread(fetch, default_folder(), print)
    mirror = Mirror(tmp_path / "volume" / "models")
    async with running(mirror.repository, tmp_path) as triton, TritonClient(triton.url) as server:
        yield Place(tmp_path, triton.url, server, mirror)


class Load:
    """Callers that ask for the highest version until the end."""

    def __init__(self, client: InferenceServerClient) -> None:
        self._client = client
        self._over = False
        self.versions: dict[str, int] = {}

    async def caller(self) -> None:
        picture = InferInput("image", list(RED.shape), "UINT8")
        picture.set_data_from_numpy(RED)
        while not self._over:
            answer = await self._client.infer("tiny", [picture])
            assert int(answer.as_numpy("logits").argmax()) == 0
            version = answer.get_response().model_version
            self.versions[version] = self.versions.get(version, 0) + 1

    async def until(self, version: str, more: int = 20) -> None:
        wanted = self.versions.get(version, 0) + more
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.versions.get(version, 0) < wanted:  # the callers count
                await asyncio.sleep(0.02)

    def end(self) -> None:
        self._over = True


@asynccontextmanager
async def load(url: str) -> AsyncIterator[Load]:
    async with InferenceServerClient(url) as client:
        made = Load(client)
        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(made.caller())
            yield made
            made.end()


async def test_versions_come_and_go_under_load(place: Place) -> None:
    await place.publish(1)
    await place.sync.synchronize()
    async with load(place.url) as callers:
        await callers.until("1")

        await place.publish(2)
        await place.sync.synchronize()
        await callers.until("2")
        assert (await place.ready(), await place.differences()) == ([2], [])

        # It passes every check of ours, and fails in the server.
        await place.publish(3, "raise RuntimeError('no such library')")
        await place.sync.synchronize()
        await callers.until("2")
        assert place.sync.refused == {"tiny"}
        assert (await place.ready(), await place.differences()) == ([2], [])

        (place.bucket.local / "tiny" / "3" / "model.py").write_text(MODEL.replace("{version}", "3"))
        await place.bucket.push()
        await place.sync.synchronize()
        await callers.until("3")
    assert sorted(callers.versions) == ["1", "2", "3"]


async def test_what_differs_from_the_files_is_told(place: Place) -> None:
    await place.publish(1)
    await place.sync.synchronize()
    assert await place.differences() == []
    config = place.mirror.repository / "tiny" / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 4", "max_batch_size: 2"))
    (line,) = await place.differences()
    assert line == f"{config}: max_batch_size: is 2; the Triton at {place.url} runs with 4"
    await place.server.unload("tiny")
    (line,) = await place.differences()
    assert "doesn't serve it" in line


async def test_warm_up_samples_are_run(place: Place, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    noting = MODEL.replace("means = ", f"open({str(seen)!r}, 'a').write(str(pictures[0, 0, 0]))\n        means = ")
    add_python_classifier(place.bucket.local, tmp_path / "scratch", code=noting)
    write_warmup(place.bucket.local / "tiny", bytes((255, 0, 51)) * 32 * 32)
    await place.bucket.push()
    await place.sync.synchronize()
    assert await place.ready() == [1]
    assert "[1.  0.  0.2]" in seen.read_text()


def write_warmup(folder: Path, content: bytes) -> None:
    (folder / "warmup").mkdir()
    (folder / "warmup" / "sample").write_bytes(content)
    with (folder / "config.pbtxt").open("a") as config:
        config.write(
            'model_warmup { name: "w" batch_size: 2 count: 1 inputs { key: "image" value { '
            'data_type: TYPE_UINT8 dims: [32, 32, 3] input_data_file: "sample" } } }\n'
        )
