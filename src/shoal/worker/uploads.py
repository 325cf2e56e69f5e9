"""``shoal.v1.Uploads``: presigned URLs, so that a client needs an API key and no credentials of the object store."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import grpc

from shoal.errors import Code, InvalidRequest, to_status
from shoal.pictures.objectstore import presign_puts
from shoal.pictures.reference import new_uuid, object_key
from shoal.runtime import rpc
from shoal.service import identity
from shoal.v1 import inference_pb2
from shoal.worker.json_message import parse
from shoal.worker.upload_limits import UploadLimits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from obstore.store import ObjectStore

    from shoal.service.spec import ObjectStore as Settings
    from shoal.worker.access import Access

    Context = grpc.aio.ServicerContext[bytes, inference_pb2.CreateUploadsReply]

log = logging.getLogger(__name__)

SERVICE = "shoal.v1.Uploads"
MAX_UPLOADS = 1000
_A_TURN = 32
"""URLs that are signed before another call has its turn: about a millisecond."""


class UploadsService:
    """Names new pictures and signs their PUTs."""

    def __init__(self, store: ObjectStore, settings: Settings, access: Access) -> None:
        self._store = store
        self._settings = settings
        self._access = access
        self._limits = UploadLimits()
        self._signing = asyncio.Lock()

    def rpc_handler(self) -> grpc.GenericRpcHandler:
        """What ``grpc.aio.Server.add_generic_rpc_handlers`` takes."""
        create: grpc.RpcMethodHandler[bytes, inference_pb2.CreateUploadsReply] = grpc.unary_unary_rpc_method_handler(
            self.create,
            response_serializer=inference_pb2.CreateUploadsReply.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Create": create})

    async def create(self, sent: bytes, context: Context) -> inference_pb2.CreateUploadsReply:
        """Answers as many URLs below the caller's own prefix as ``sent``, a CreateUploadsRequest, asks for."""
        told = rpc.told(context)
        try:
            as_json = self._access.came_as_json(told.get(identity.HEADER, ""))
            return await self._create(parse(inference_pb2.CreateUploadsRequest, sent, as_json=as_json), told)
        except Exception as error:
            code, message = to_status(error)
            if code is Code.INTERNAL:
                log.exception("Uploads/Create failed")
            await context.abort(rpc.STATUS[code], message, rpc.hints_of(error))

    async def _create(
        self, request: inference_pb2.CreateUploadsRequest, told: Mapping[str, str]
    ) -> inference_pb2.CreateUploadsReply:
        key_id, verified = told.get(identity.CLIENT_HEADER, ""), told.get(identity.HEADER, "")
        grant = self._access.grant(key_id, verified, request.api_key)
        if request.count > MAX_UPLOADS:
            raise InvalidRequest(f"count {request.count} is over {MAX_UPLOADS}; ask several times")
        count = request.count or 1
        self._limits.take(key_id, self._access.rate(key_id, verified), count, time.monotonic())
        uploads = [one for size in _turns(count) for one in await self._sign(grant.prefix, size)]
        return inference_pb2.CreateUploadsReply(
            uploads=uploads,
            expires_in_seconds=self._settings.upload_url_lifetime_seconds,
            max_bytes=self._settings.max_image_bytes,
        )

    async def _sign(self, prefix: str, count: int) -> list[inference_pb2.Upload]:
        """A few at a time, one call after the other: signing thousands would hold up the batches of others."""
        async with self._signing:
            names = [new_uuid() for _ in range(count)]
            lifetime = self._settings.upload_url_lifetime_seconds
            urls = await presign_puts(self._store, [object_key(prefix, name) for name in names], lifetime)
        return [inference_pb2.Upload(image_uuid=name, put_url=url) for name, url in zip(names, urls, strict=True)]


def _turns(count: int) -> Iterator[int]:
    """``count`` in parts of ``_A_TURN`` at most."""
    while count > 0:
        yield min(count, _A_TURN)
        count -= _A_TURN
