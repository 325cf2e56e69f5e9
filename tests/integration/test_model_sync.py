"""``shoal serve model-sync`` and the commands around it, against a real S3 server and the whole service."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import obstore
import pytest
from PIL import Image

from shoal.client import AsyncClient
from shoal.modelstore import repository
from shoal.modelstore.publishing.manifest import file_key
from shoal.modelstore.publishing.snapshot import entry_of
from support.fake_triton import fake_triton
from support.model_sync import PATIENCE_SECONDS, model_sync
from support.pictures import encode
from support.s3 import Server, running_s3
from support.stack import running_stack, shoal
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

RED = encode(Image.new("RGB", (64, 48), (250, 0, 0)))
CALLERS = 8
PAUSE_SECONDS = 0.1
"""Of each caller, between its calls: the rest of the machine is for what happens beside them."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_s3(tmp_path / "s3", "models") as running:
        yield running


class Place:
    """A folder to build models in, a service file, and the store between."""

    def __init__(self, root: Path, server: Server) -> None:
        self.local = root / "local"
        self.repository = root / "volume" / "models"
        self.service_file = root / "shoal.yaml"
        self.service = json.dumps(
            {
                "model_store": {
                    "path": str(self.repository),
                    "url": server.url,
                    "endpoint": server.address,
                    "credentials_file": str(server.credentials_file),
                    "poll_seconds": 1,
                }
            }
        )
        self.service_file.write_text(self.service)
        self._root = root
        self._access = ("--endpoint", server.address, "--credentials-file", server.credentials_file)
        self._url = server.url

    def push(self, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        arguments = ("tiny", self._url, *self._access, "--store", self.local, *options)
        return shoal(self._root / "builder", "model", "push", *arguments, check=check)

    def pull(self, store: Path, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        arguments = (self._url, *self._access, "--store", store, *options)
        return shoal(self._root / "builder", "model", "pull", *arguments, check=check)

    def add(self, version: int) -> None:
        """A version whose file differs from the others'."""
        config = add_tiny_classifier(self.local, version=version)
        if version > 1:
            assert config.version == version
        with config.path.with_name("notes.txt").open("w") as notes:
            notes.write(f"version {version}")
        with (config.path.parent.parent / str(version) / "model.onnx").open("ab") as model:
            # Field 6 of a ModelProto is its doc_string.
            model.write(b"\x32" + bytes([version]) + b"x" * version)

    def content_of(self, path: str) -> str:
        return file_key("tiny", entry_of(self.local / "tiny" / path).sha256)

    @property
    def version(self) -> int:
        return repository.read_model(self.repository, "tiny").version


@pytest.fixture
def place(tmp_path: Path, server: Server) -> Place:
    return Place(tmp_path, server)


class Load:
    """Callers that go on until the end; a failure of any is the test's."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self.versions: dict[int, int] = {}
        self._over = False

    async def caller(self) -> None:
        image_uuid = await self._client.upload(RED)
        while not self._over:
            answer = await self._client.classify(image_uuid, "tiny")
            assert answer.classes[0].label == "red"
            self.versions[answer.model_version] = self.versions.get(answer.model_version, 0) + 1
            await asyncio.sleep(PAUSE_SECONDS)

    async def until(self, version: int, more: int = 5 * CALLERS) -> None:
        """Waits for so many more answers of a version."""
        wanted = self.versions.get(version, 0) + more
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.versions.get(version, 0) < wanted:  # the callers count
                await asyncio.sleep(0.02)

    def end(self) -> None:
        self._over = True


@asynccontextmanager
async def load(target: str, api_key: str) -> AsyncIterator[Load]:
    async with AsyncClient(target, api_key=api_key, timeout_seconds=60) as client:
        running = Load(client)
        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLERS):
                callers.create_task(running.caller())
            yield running
            running.end()


async def test_versions_are_served_under_load_whatever_happens_to_the_store(
    tmp_path: Path, server: Server, place: Place
) -> None:
    place.add(1)
    place.push()
    async with model_sync(place.service_file) as sync:
        with running_stack(tmp_path / "home", models=lambda _: None, service=place.service) as stack:
            async with load(stack.target, stack.api_key) as running:
                await running.until(1)

                place.add(2)
                await asyncio.to_thread(place.push)
                await sync.notify()
                await running.until(2)

                place.add(3)
                await asyncio.to_thread(place.push)
                await sync.until_metric("switches_total", 3, model="tiny")
                await running.until(3)

                # A corrupt upload: the manifest is there, the graph's bytes are others.
                place.add(4)
                graph = entry_of(place.local / "tiny" / "4" / "model.onnx")
                await obstore.put_async(server.store(), place.content_of("4/model.onnx"), bytes(graph.size))
                await asyncio.to_thread(place.push)
                await sync.until_metric("refused_total", 1, model="tiny")
                await running.until(3)
                assert 4 not in running.versions
                assert sync.log().count("ERROR") == 1
                assert "damaged" in sync.log()

                server.stop()
                await sync.until_metric("looks_total", 1, outcome="failed")
                await running.until(3)
                assert await sync.ready()
                server.start()

                await asyncio.to_thread(place.push, "--again")
                await running.until(4)
            assert sorted(running.versions) == [1, 2, 3, 4]
            assert await stack.metric("router", "envoy_cluster_upstream_rq_xx_total", envoy_response_code_class="2")
            assert not await stack.metric("router", "envoy_cluster_upstream_rq_xx_total", envoy_response_code_class="5")
    assert len(list((place.repository.parent / ".models.sync" / "tiny").glob("*/index.json"))) == 2


async def test_readiness_comes_after_the_first_synchronisation(server: Server, place: Place) -> None:
    place.add(1)
    place.push()
    server.stop()
    async with model_sync(place.service_file, ready=False) as sync:
        await sync.until_metric("looks_total", 1, outcome="failed")
        assert not await sync.ready()
        assert "the store is away" in sync.log()
        server.start()
        await sync.until_metric("looks_total", 1, outcome="done")
        assert await sync.ready()
        assert place.version == 1
    server.stop()
    async with model_sync(place.service_file) as sync:  # what came before is enough
        assert place.version == 1


async def test_once_for_an_init_container(place: Place, tmp_path: Path) -> None:
    place.add(1)
    place.push()
    command = ("serve", "model-sync", "--service", place.service_file, "--once")
    assert shoal(tmp_path / "home", *command).returncode == 0
    assert place.version == 1
    async with model_sync(place.service_file):
        done = shoal(tmp_path / "home", *command, check=False)
        assert (done.returncode, "another model-sync runs here already" in done.stderr) == (2, True)


async def test_a_triton_in_explicit_mode_is_told(place: Place) -> None:
    place.add(1)
    place.push()
    place.repository.mkdir(parents=True)
    async with (
        fake_triton(place.repository) as (triton, url),
        model_sync(place.service_file, "--triton", url) as sync,
    ):
        assert triton.models["tiny"].versions == (1,)
        place.add(2)
        await asyncio.to_thread(place.push)
        await sync.notify()
        await sync.until_metric("switches_total", 2, model="tiny")
        assert triton.models["tiny"].versions == (2,)
        triton.forget()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "tiny" not in triton.models:  # model-sync sees to it
                await asyncio.sleep(0.05)


def test_a_pool_gets_its_own_models(place: Place, tmp_path: Path) -> None:
    place.add(1)
    place.push()
    service = json.loads(place.service)
    service["pools"] = {"one": {"models": ["resnet*"]}, "two": {"models": ["*"]}}
    place.service_file.write_text(json.dumps(service))
    for pool, models in (("one", []), ("two", ["tiny"])):
        shoal(tmp_path / "home", "serve", "model-sync", "--service", place.service_file, "--pool", pool, "--once")
        assert repository.names(place.repository) == models


def test_push_and_pull_through_a_real_server(place: Place, server: Server, tmp_path: Path) -> None:
    place.add(1)
    big = place.local / "tiny" / "1" / "weights.bin"
    big.write_bytes(os.urandom(20_000_000))  # several parts
    assert place.push().stdout == "tiny: published version 1\n"
    assert place.push().stdout == "tiny: nothing new\n"
    store = tmp_path / "pulled"
    place.pull(store)
    assert entry_of(store / "tiny" / "1" / "weights.bin") == entry_of(big)
    server.store().put(place.content_of("1/weights.bin"), b"short")
    done = place.pull(tmp_path / "other", check=False)
    assert (done.returncode, "has 5 bytes, the manifest says 20,000,000" in done.stderr) == (2, True)
    assert not (tmp_path / "other" / "tiny").exists()


def test_what_is_wrong_with_a_store_is_said(place: Place, server: Server, tmp_path: Path) -> None:
    place.add(1)
    access = ("--endpoint", server.address, "--credentials-file", server.credentials_file, "--store", place.local)
    done = shoal(tmp_path / "home", "model", "push", "tiny", "s3://nobody", *access, check=False)
    assert (done.returncode, done.stderr) == (1, "shoal: s3://nobody: no such bucket\n")
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps({"access_key_id": "hunter1" * 3, "secret_access_key": "hunter2" * 6}))
    wrong.chmod(0o600)
    access = ("--endpoint", server.address, "--credentials-file", wrong, "--store", place.local)
    done = shoal(tmp_path / "home", "model", "push", "tiny", server.url, *access, check=False)
    assert done.returncode == 2
    assert "the store doesn't let these credentials" in done.stderr
    assert "hunter" not in done.stderr
    server.stop()
    done = place.push(check=False)
    assert (done.returncode, "the store is away" in done.stderr) == (1, True)
