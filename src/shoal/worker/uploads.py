"""``shoal.v1.Uploads``: presigned URLs, so that a client needs an API key and no credentials of the object store."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING

import grpc

from shoal import identity, rpc
from shoal.errors import Code, InvalidRequest, to_status
from shoal.objectstore import object_key, presign_puts
from shoal.v1 import inference_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from obstore.store import ObjectStore

    from shoal.spec import ObjectStore as Settings
    from shoal.worker.access import Access

    Context = grpc.aio.ServicerContext[inference_pb2.CreateUploadsRequest, inference_pb2.CreateUploadsReply]

log = logging.getLogger(__name__)

SERVICE = "shoal.v1.Uploads"
MAX_UPLOADS = 1000


class UploadsService:
    """Names new pictures and signs their PUTs."""

    def __init__(self, store: ObjectStore, settings: Settings, access: Access) -> None:
        self._store = store
        self._settings = settings
        self._access = access

    def rpc_handler(self) -> grpc.GenericRpcHandler:
        """What ``grpc.aio.Server.add_generic_rpc_handlers`` takes."""
        create = grpc.unary_unary_rpc_method_handler(
            self.create,
            request_deserializer=inference_pb2.CreateUploadsRequest.FromString,
            response_serializer=inference_pb2.CreateUploadsReply.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Create": create})

    async def create(
        self, request: inference_pb2.CreateUploadsRequest, context: Context
    ) -> inference_pb2.CreateUploadsReply:
        """Answers ``request.count`` URLs below the caller's own prefix."""
        try:
            return await self._create(request, rpc.told(context))
        except Exception as error:
            code, message = to_status(error)
            if code is Code.INTERNAL:
                log.exception("Uploads/Create failed")
            await context.abort(rpc.STATUS[code], message)

    async def _create(
        self, request: inference_pb2.CreateUploadsRequest, told: Mapping[str, str]
    ) -> inference_pb2.CreateUploadsReply:
        grant = self._access.grant(told.get("x-client-id", ""), told.get(identity.HEADER, ""), request.api_key)
        if request.count > MAX_UPLOADS:
            raise InvalidRequest(f"count {request.count} is over {MAX_UPLOADS}; ask several times")
        names = [str(uuid.uuid4()) for _ in range(request.count or 1)]
        lifetime = self._settings.upload_url_lifetime_seconds
        urls = await presign_puts(self._store, [object_key(grant.prefix, name) for name in names], lifetime)
        return inference_pb2.CreateUploadsReply(
            uploads=[inference_pb2.Upload(image_uuid=name, put_url=url) for name, url in zip(names, urls, strict=True)],
            expires_in_seconds=lifetime,
            max_bytes=self._settings.max_image_bytes,
        )
