"""What a presigned URL of the managed store is good for, and what it isn't."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import aiohttp
import grpc
import pytest
from yarl import URL

from shoal.service.spec import ObjectStore
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.stack import Stack

MOST = ObjectStore().max_image_bytes
JPEG = {"content-type": "image/jpeg"}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers=JPEG) as made:
        yield made


async def address(stack: Stack) -> URL:
    """Where a new picture may be put."""
    async with grpc.aio.insecure_channel(stack.target) as channel:
        create = channel.unary_unary("/shoal.v1.Uploads/Create")
        request = pb.CreateUploadsRequest(api_key=stack.api_key).SerializeToString()
        reply = pb.CreateUploadsReply.FromString(await create(request, metadata=(("x-api-key", stack.api_key),)))
    return URL(reply.uploads[0].put_url, encoded=True)


async def put(session: aiohttp.ClientSession, url: URL, content: object, **headers: str) -> tuple[int, str]:
    async with session.put(url, data=content, headers=headers) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("size", [0, 1, 100_000, MOST])
async def test_a_picture_of_any_size_that_is_fetched_is_taken(
    stack: Stack, session: aiohttp.ClientSession, size: int
) -> None:
    url = await address(stack)
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert (await put(session, url, io.BytesIO(content)))[0] == 200
    (kept,) = stack.home.objects.rglob(url.name)
    assert kept.read_bytes() == content
    kept.unlink()


async def test_what_no_worker_would_fetch_is_not_taken(stack: Stack, session: aiohttp.ClientSession) -> None:
    url = await address(stack)
    status, text = await put(session, url, io.BytesIO(bytes(MOST + 1)))
    assert (status, text) == (413, f"a picture may have {MOST} bytes (object_store.max_image_bytes)")
    assert not list(stack.home.objects.rglob(url.name))


async def test_a_size_that_is_not_told_is_not_taken(stack: Stack, session: aiohttp.ClientSession) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield bytes(1000)

    url = await address(stack)
    status, text = await put(session, url, endless())
    assert (status, text) == (411, "an upload must say its size in Content-Length")


async def test_the_signature_still_binds(stack: Stack, session: aiohttp.ClientSession) -> None:
    url = await address(stack)
    other = await address(stack)
    assert (await put(session, url.with_path(other.path, encoded=True, keep_query=True), b"x"))[0] == 403
    for method in ("GET", "DELETE", "POST", "HEAD"):
        async with session.request(method, url) as answer:
            assert answer.status == 405
