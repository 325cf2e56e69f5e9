from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING

import grpc
import pytest

from shoal.pictures.objectstore import Credentials, open_store
from shoal.service import spec
from shoal.service.api_keys import Key, KeyRing
from shoal.service.identity import HEADER, Identity
from shoal.v1 import inference_pb2
from shoal.worker.access import Access
from shoal.worker.uploads import UploadsService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRET, SLOW = "s" * 24, "w" * 24
SETTINGS = spec.ObjectStore(upload_url_lifetime_seconds=60, max_image_bytes=1000)


@contextlib.asynccontextmanager
async def serving(url: str = SETTINGS.url) -> AsyncIterator[grpc.aio.UnaryUnaryMultiCallable]:
    settings = SETTINGS.model_copy(update={"url": url})
    store = open_store(settings, Credentials("access" * 4, "secret" * 4), "http://127.0.0.1:1")
    slow = Key(id="slow", key=SLOW, owner="me", requests_per_second=0.5)
    access = Access(KeyRing([Key(id="k", key=SECRET, owner="me"), Key(id="other", key="o" * 24, owner="you"), slow]))
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((UploadsService(store, settings, access).rpc_handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel.unary_unary(
            "/shoal.v1.Uploads/Create",
            request_serializer=inference_pb2.CreateUploadsRequest.SerializeToString,
            response_deserializer=inference_pb2.CreateUploadsReply.FromString,
        )
    await server.stop(None)


async def ask(
    count: int = 1, api_key: str = SECRET, client: str = "k", url: str = SETTINGS.url
) -> inference_pb2.CreateUploadsReply:
    async with serving(url) as create:
        request = inference_pb2.CreateUploadsRequest(api_key=api_key, count=count)
        return await create(request, metadata=(("x-client-id", client),))


async def test_urls_are_below_the_owners_prefix_and_say_what_they_are_good_for() -> None:
    reply = await ask(3)
    assert (reply.expires_in_seconds, reply.max_bytes) == (60, 1000)
    names = {upload.image_uuid for upload in reply.uploads}
    assert len(names) == 3
    for upload in reply.uploads:
        assert str(uuid.UUID(upload.image_uuid)) == upload.image_uuid
        assert f"/images/me/{upload.image_uuid}.jpg?" in upload.put_url
        assert "X-Amz-Signature=" in upload.put_url


async def test_no_count_means_one() -> None:
    assert len((await ask(0)).uploads) == 1


@pytest.mark.parametrize(
    ("count", "api_key", "client", "code"),
    [
        (1001, SECRET, "k", grpc.StatusCode.INVALID_ARGUMENT),
        (1, "", "k", grpc.StatusCode.UNAUTHENTICATED),
        (1, "o" * 24, "k", grpc.StatusCode.UNAUTHENTICATED),
        (1, SECRET, "gone", grpc.StatusCode.UNAUTHENTICATED),
    ],
)
async def test_what_is_refused(count: int, api_key: str, client: str, code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(count, api_key, client)
    assert caught.value.code() is code
    assert SECRET not in (caught.value.details() or "")


async def test_a_prefix_in_the_stores_url_is_part_of_what_is_signed() -> None:
    (upload,) = (await ask(url="s3://images/all")).uploads
    assert f"/images/all/me/{upload.image_uuid}.jpg?" in upload.put_url


async def test_a_store_without_presigned_urls_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(url="memory://")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "presigned uploads need an s3://, gs:// or az:// store" in caplog.text


async def test_each_upload_counts_against_the_keys_rate() -> None:
    async with serving() as create:

        async def answer(count: int) -> tuple[grpc.StatusCode, int]:
            call = create(
                inference_pb2.CreateUploadsRequest(api_key=SLOW, count=count), metadata=(("x-client-id", "slow"),)
            )
            code = await call.code()
            return code, len((await call).uploads) if code is grpc.StatusCode.OK else 0

        assert await answer(1000) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 0)
        assert await answer(64) == (grpc.StatusCode.OK, 64)
        assert await answer(1) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 0)


async def test_many_are_answered_in_the_order_of_their_names() -> None:
    reply = await ask(100)
    assert len({upload.image_uuid for upload in reply.uploads}) == 100
    assert all(f"/{upload.image_uuid}.jpg?" in upload.put_url for upload in reply.uploads)


async def test_the_rate_of_a_key_that_only_the_router_knows_yet_binds() -> None:
    new = Key(id="new", key="n" * 24, owner="me", requests_per_second=0.5)
    metadata = (("x-client-id", new.id), (HEADER, Identity.of(new).write()))
    async with serving() as create:
        call = create(inference_pb2.CreateUploadsRequest(api_key=new.key, count=1000), metadata=metadata)
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        call = create(inference_pb2.CreateUploadsRequest(api_key=new.key, count=64), metadata=metadata)
        assert await call.code() is grpc.StatusCode.OK
