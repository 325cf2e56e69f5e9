"""The object store against a real S3 server."""

from __future__ import annotations

import socket
import subprocess
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import aiohttp
import pytest

from shoal import spec
from shoal.errors import Internal, InvalidRequest, NotFound, Unavailable
from shoal.local.store import store_part
from shoal.objectstore import Credentials, create_credentials, object_key, open_store, presign_puts, remove_older_than
from shoal.topology import Endpoint
from shoal.worker.fetch import Fetcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore.store import ObjectStore

UUID = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
KEY = object_key("team/", UUID)
SETTINGS = spec.ObjectStore(url="s3://images")


class Server:
    """A running S3 server with an empty bucket."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, credentials: Credentials) -> None:
        self.process = process
        self.address = address
        self.credentials = credentials

    def store(self, credentials: Credentials | None = None) -> ObjectStore:
        return open_store(SETTINGS, credentials or self.credentials, self.address)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("s3")
    (root / "objects" / "images").mkdir(parents=True)
    credentials = create_credentials(root / "credentials.json")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        listen = Endpoint("127.0.0.1", probe.getsockname()[1])
    part = store_part(listen, root / "objects", credentials)
    process = subprocess.Popen(part.command, env=dict(part.environment), stderr=subprocess.DEVNULL)
    try:
        _await_port(listen, process)
        yield Server(process, f"http://{listen}", credentials)
    finally:
        process.kill()
        process.wait()


def _await_port(listen: Endpoint, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            socket.create_connection(listen, timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise TimeoutError(listen)


def fetcher(store: ObjectStore, timeout_seconds: float = 10) -> Fetcher:
    return Fetcher(store, concurrency=8, max_bytes=1_000_000, timeout_seconds=timeout_seconds)


async def test_a_presigned_put_can_be_fetched(server: Server) -> None:
    store = server.store()
    (url,) = await presign_puts(store, [KEY], 60)
    async with aiohttp.ClientSession() as session:
        assert (await session.put(url, data=b"picture")).status == 200
        assert (await session.get(url)).status == 403
    assert bytes(await fetcher(store).fetch(KEY)) == b"picture"


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
    server.process.kill()
    server.process.wait()
    with pytest.raises(Unavailable, match=r"within 0\.3 s"):
        await fetcher(store, timeout_seconds=0.3).fetch(KEY)


async def test_retention(server: Server) -> None:
    store = server.store()
    for number in range(30):
        await store.put_async(f"team/{number}.jpg", b"x")
    now = datetime.now(UTC)
    assert await remove_older_than(store, timedelta(hours=1), now=now) == 0
    assert await remove_older_than(store, timedelta(hours=1), now=now + timedelta(hours=2)) == 30
    assert store.list().collect() == []
