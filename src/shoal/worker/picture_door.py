"""Calls that bring their picture along, as the router passes them on.

The router asks here by Envoy's external processing
(https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/ext_proc_filter), in mode
FULL_DUPLEX_STREAMED: the picture comes in as the call's body. What goes back, and on to a batcher, is an
``ImageRequest`` with the picture's uuid; or, where nothing is asked, the answer itself.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from shoal.batching.wire import MAX_CHUNK_BYTES
from shoal.batching.wire import PICTURE_ANSWERED as ANSWERED
from shoal.batching.wire import PICTURES_CREATE as CREATE
from shoal.errors import HTTP_STATUS, RETRY_AFTER, Code, InvalidRequest, to_status
from shoal.runtime import rpc
from shoal.service import identity
from shoal.v1 import inference_pb2
from shoal.v1.picture_body_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeadersResponse,
    HttpHeaders,
    ImmediateResponse,
    Part,
    PictureCall,
    ProcessingRequest,
    ProcessingResponse,
    StreamedBodyResponse,
)
from shoal.worker.grpc_frames import Frames, frame
from shoal.worker.picture_intake import PictureTooLarge

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shoal.worker.access import Access, Grant
    from shoal.worker.picture_intake import ArrivingPicture, PictureIntake

    Messages = AsyncIterator[ProcessingRequest]
    Context = grpc.aio.ServicerContext[ProcessingRequest, ProcessingResponse]

log = logging.getLogger(__name__)

PROCESSOR: Final = "envoy.service.ext_proc.v3.ExternalProcessor"


class PictureDoor:
    """Takes pictures in."""

    def __init__(self, intake: PictureIntake, access: Access) -> None:
        self._intake = intake
        self._access = access

    def rpc_handler(self) -> grpc.GenericRpcHandler:
        """What ``grpc.aio.Server.add_generic_rpc_handlers`` takes."""
        process = grpc.stream_stream_rpc_method_handler(
            self.process,
            request_deserializer=ProcessingRequest.FromString,
            response_serializer=ProcessingResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(PROCESSOR, {"Process": process})

    async def process(
        self, messages: AsyncIterator[ProcessingRequest], _: Context
    ) -> AsyncIterator[ProcessingResponse]:
        """Stores the picture of one call, and sends the call on without it."""
        picture = None
        try:
            told = _headers((await anext(aiter(messages))).request_headers)
            picture = self._intake.begin(self._grant(told.get(identity.CLIENT_HEADER, "")))
            request = await _take(picture, messages)
            request.image_uuid = await picture.store()
            if told.get(":path") == CREATE:
                yield ProcessingResponse(immediate_response=_created(request.image_uuid))
                return
            yield ProcessingResponse(request_headers=HeadersResponse())
            yield ProcessingResponse(request_body=_whole(frame(request.SerializeToString())))
        except Exception as error:
            yield ProcessingResponse(immediate_response=_refusal(error))
        finally:
            if picture is not None:
                picture.release()

    def _grant(self, text: str) -> Grant:
        """By the identity, which the router's filter has put where the route puts the key's id later."""
        return self._access.grant(text.partition("?")[0], f"{text}&json=1", "")


def _headers(sent: HttpHeaders) -> dict[str, str]:
    return {each.key: each.raw_value.decode("latin-1") or each.value for each in sent.headers.headers}


async def _take(picture: ArrivingPicture, messages: Messages) -> inference_pb2.ImageRequest:
    """Reads the body; what the call asks for."""
    frames, request = Frames(MAX_CHUNK_BYTES), None
    async for message in messages:
        for part in frames.add(message.request_body.body):
            if request is None:
                request = _request(part)
            told = _part(part)
            picture.add(told.data, told.content_type)
        if message.request_body.end_of_stream or message.WhichOneof("request") == "request_trailers":
            break
    return request or inference_pb2.ImageRequest()


def _request(message: bytes) -> inference_pb2.ImageRequest:
    request = inference_pb2.ImageRequest.FromString(message)
    request.DiscardUnknownFields()
    return request


def _part(message: bytes) -> Part:
    try:
        return PictureCall.FromString(message).picture
    except DecodeError:
        raise InvalidRequest("the message is no part of a picture") from None


def _whole(body: bytes) -> BodyResponse:
    streamed = StreamedBodyResponse(body=body, end_of_stream=True)
    return BodyResponse(response=CommonResponse(body_mutation=BodyMutation(streamed_response=streamed)))


def _created(image_uuid: str) -> ImmediateResponse:
    told = inference_pb2.Picture(image_uuid=image_uuid)
    return _answer(HTTP_STATUS[Code.OK], json_format.MessageToDict(told, preserving_proto_field_name=True))


def _refusal(error: Exception) -> ImmediateResponse:
    """In the form that other refusals of JSON callers have."""
    code, message = to_status(error)
    if code is Code.INTERNAL:
        log.exception("a picture could not be taken in")
    status = 413 if isinstance(error, PictureTooLarge) else HTTP_STATUS[code]
    answer = _answer(status, {"code": int(code), "message": message, "details": []})
    if seconds := dict(rpc.hints_of(error)).get(RETRY_AFTER):
        hint = answer.headers.set_headers.add().header
        hint.key, hint.raw_value = RETRY_AFTER, seconds.encode()
    return answer


def _answer(status: int, told: dict[str, object]) -> ImmediateResponse:
    answer = ImmediateResponse(body=json.dumps(told).encode(), details=ANSWERED)
    answer.status.code = status
    return answer
