"""The client against a real S3 server, and load generators in processes of their own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import obstore
import pytest

from shoal.client import AsyncClient
from shoal.client.connection import Connection
from shoal.client.load.fleet import LoadJob, run_job
from shoal.client.load.generator import LoadRequest, LoadSettings
from shoal.errors import Unavailable
from shoal.local.store import store_part
from shoal.modelconfig.model import Task
from shoal.pictures.objectstore import Credentials, open_store, presign_puts
from shoal.service.spec import ObjectStore as Settings
from shoal.v1 import inference_pb2 as pb
from support.fake_service import API_KEY, KNOWN, FakeService, serving, serving_in_thread
from support.ports import free

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from obstore.store import ObjectStore

    from shoal.runtime.endpoint import Endpoint

PICTURE = bytes(range(256)) * 400
CREDENTIALS = Credentials("SHOLTESTKEY", "a-secret-of-some-length")


class Signing(FakeService):
    """Its upload URLs are really presigned."""

    store: ObjectStore
    signed_seconds: float = 60

    async def create(self, request: pb.CreateUploadsRequest, context: object) -> pb.CreateUploadsReply:
        names = [str(uuid4()) for _ in range(request.count)]
        urls = await presign_puts(self.store, [f"alice/{name}.jpg" for name in names], self.signed_seconds)
        uploads = [pb.Upload(image_uuid=name, put_url=url) for name, url in zip(names, urls, strict=True)]
        return pb.CreateUploadsReply(uploads=uploads, expires_in_seconds=60, max_bytes=10**6)


@asynccontextmanager
async def s3_server(endpoint: Endpoint, folder: Path) -> AsyncIterator[None]:
    (folder / "images" / "alice").mkdir(parents=True, exist_ok=True)
    part = store_part(endpoint, folder, CREDENTIALS)
    process = await asyncio.create_subprocess_exec(
        *part.command, env=dict(part.environment), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


def open_bucket(endpoint: Endpoint) -> ObjectStore:
    return open_store(Settings(url="s3://images"), CREDENTIALS, f"http://{endpoint}")


async def test_presigned_uploads_survive_a_store_that_starts_late(tmp_path: Path) -> None:
    endpoint = free()
    service = Signing()
    service.store = open_bucket(endpoint)
    async with serving(service), AsyncClient(service.target, api_key=API_KEY) as client:
        first = asyncio.create_task(client.upload(PICTURE))
        async with s3_server(endpoint, tmp_path):
            uuids = [await first, *await client.upload_many([PICTURE] * 100)]
            answer = await client.classify(uuids[0], "cats")
        stored = {path.stem for path in (tmp_path / "images" / "alice").iterdir()}
    assert answer.image_uuid == uuids[0]
    assert stored == set(uuids)
    assert len(stored) == 101
    assert (tmp_path / "images" / "alice" / f"{uuids[0]}.jpg").read_bytes() == PICTURE


async def test_own_credentials_survive_a_store_that_starts_late(tmp_path: Path) -> None:
    endpoint = free()
    bucket = open_bucket(endpoint)
    async with (
        serving() as service,
        AsyncClient(service.target, api_key=API_KEY, store=bucket, key_prefix="alice/") as client,
        s3_server(endpoint, tmp_path),
    ):
        outcomes = [outcome async for outcome in client.map([PICTURE] * 50, "cats")]
        assert [outcome.error for outcome in outcomes] == [None] * 50
        key = f"alice/{outcomes[0].unwrap().image_uuid}.jpg"
        assert (await obstore.head_async(bucket, key))["size"] == len(PICTURE)


async def test_calls_survive_a_service_that_restarts() -> None:
    async with serving() as first:
        target = first.target
        client = AsyncClient(target, api_key=API_KEY)
        await client.classify(KNOWN, "cats")
    async with client:
        pending = asyncio.create_task(client.classify(KNOWN, "cats"))
        async with serving(FakeService(), port=int(target.rpartition(":")[2])):
            assert (await pending).image_uuid == KNOWN


def test_processes_share_the_load() -> None:
    with serving_in_thread() as service:
        requests = (LoadRequest(Task.CLASSIFICATION, KNOWN, "cats"),)
        settings = LoadSettings(concurrency=4, duration_seconds=0.5, warm_up_seconds=0.1)
        result = run_job(LoadJob(Connection(service.target, API_KEY), requests, settings), 2, lambda _elapsed: None)
    assert 0 < result.answered <= service.calls["Classify"]
    assert not result.failed.codes


def test_processes_tell_that_nobody_answers() -> None:
    settings = LoadSettings(concurrency=2, duration_seconds=0.5)
    job = LoadJob(Connection(str(free()), API_KEY), (LoadRequest(Task.CLASSIFICATION, KNOWN, "m"),), settings)
    with pytest.raises(Unavailable, match="no service answers"):
        run_job(job, 2, lambda _elapsed: None)
