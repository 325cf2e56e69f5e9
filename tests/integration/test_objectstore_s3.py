"""The object store against a real S3 server."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from typing import TYPE_CHECKING

import aiohttp
import pytest

from shoal.errors import Internal, InvalidRequest, NotFound, Unavailable
from shoal.pictures.objectstore import Credentials, presign_puts
from shoal.pictures.reference import object_key
from shoal.worker.fetch_picture import Fetcher
from shoal.worker.picture_cache import PictureCache
from support.s3 import Server, running_s3

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from obstore.store import ObjectStore

UUID = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
KEY = object_key("team/", UUID)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_s3(tmp_path, "images") as running:
        yield running


def fetcher(store: ObjectStore, timeout_seconds: float = 10) -> Fetcher:
    return Fetcher(store, concurrency=8, max_bytes=1_000_000, budget_bytes=10**8, timeout_seconds=timeout_seconds)


async def test_a_presigned_put_can_be_fetched(server: Server) -> None:
    store = server.store()
    (url,) = await presign_puts(store, [KEY], 60)
    async with aiohttp.ClientSession() as session:
        assert (await session.put(url, data=b"picture")).status == 200
        assert (await session.get(url)).status == 403
    assert bytes((await fetcher(store).fetch(KEY)).data) == b"picture"


async def test_what_is_kept_is_confirmed_and_what_was_replaced_or_deleted_is_noticed(server: Server) -> None:
    store = server.store()
    await store.put_async(KEY, b"picture")
    kept = PictureCache(10**6)
    asking = Fetcher(store, concurrency=8, max_bytes=10**6, budget_bytes=10**8, timeout_seconds=10, cache=kept)
    first, second = await asking.fetch(KEY), await asking.fetch(KEY)
    assert second.content is first.content is not None  # pixels of one are good for the other
    await store.put_async(KEY, b"another")
    assert bytes((await asking.fetch(KEY)).data) == b"another"
    await store.delete_async(KEY)
    with pytest.raises(NotFound):
        await asking.fetch(KEY)


async def test_a_key_is_its_bytes_and_none_that_only_looks_the_same(server: Server) -> None:
    store = server.store()
    composed, decomposed = (object_key(unicodedata.normalize(form, "café/"), UUID) for form in ("NFC", "NFD"))
    await store.put_async(composed, b"one")
    await store.put_async(decomposed, b"two")
    found = [bytes((await fetcher(store).fetch(key)).data) for key in (composed, decomposed)]
    assert found == [b"one", b"two"]
    await store.delete_async(composed)
    with pytest.raises(NotFound):
        await fetcher(store).fetch(composed)


async def test_an_altered_url_is_refused(server: Server) -> None:
    (url,) = await presign_puts(server.store(), [KEY], 60)
    async with aiohttp.ClientSession() as session:
        assert (await session.put(url.replace("X-Amz-Expires=60", "X-Amz-Expires=600"), data=b"x")).status >= 400


async def test_errors_have_their_kinds(server: Server) -> None:
    store = server.store()
    with pytest.raises(NotFound, match=UUID):
        await fetcher(store).fetch(KEY)
    await store.put_async(KEY, b"")
    with pytest.raises(InvalidRequest, match="empty"):
        await fetcher(store).fetch(KEY)
    await store.put_async(KEY, bytes(1_000_001))
    with pytest.raises(InvalidRequest, match="1,000,001 bytes"):
        await fetcher(store).fetch(KEY)


async def test_a_wrong_secret_is_our_fault(server: Server) -> None:
    wrong = Credentials(server.credentials.access_key_id, "hunter2" * 4)
    with pytest.raises(Internal, match="credentials") as caught:
        await fetcher(server.store(wrong)).fetch(KEY)
    assert "hunter2" not in repr(caught.value)


async def test_a_store_that_went_away(server: Server) -> None:
    store = server.store()
    await store.put_async(KEY, b"picture")
    server.stop()
    with pytest.raises(Unavailable, match=r"within 0\.3 s"):
        await fetcher(store, timeout_seconds=0.3).fetch(KEY)


PULL = (sys.executable, "-m", "shoal", "model", "pull", "s3://models/prod", "--endpoint", "http://127.0.0.1:9")


def test_a_command_whose_last_call_failed_ends_by_itself(tmp_path: Path) -> None:
    """Its threads, still busy with that call's objects, once aborted every third process that ended."""
    key = tmp_path / "credentials.json"
    key.write_text('{"access_key_id": "somebody", "secret_access_key": "something"}')
    key.chmod(0o600)
    command = (*PULL, "--credentials-file", str(key), "--store", str(tmp_path / "models"))
    for _ in range(4):
        running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
        told = [process.communicate(timeout=60)[1] for process in running]
        assert [process.returncode for process in running] == [1] * 3, told
