"""Envoy's conversation about a call that brings its picture along, against a store in memory."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import obstore
import pytest
from obstore.store import MemoryStore

from shoal.errors import InvalidRequest
from shoal.service.api_keys import Key, KeyRing
from shoal.service.identity import CLIENT_HEADER, Identity
from shoal.v1 import inference_pb2 as pb
from shoal.v1.picture_body_pb2 import PictureCall, ProcessingRequest, ProcessingResponse
from shoal.worker.access import Access
from shoal.worker.grpc_frames import Frames, frame
from shoal.worker.picture_door import PictureDoor
from shoal.worker.picture_intake import PictureIntake, is_picture

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

KEY = Key(id="k", key="s" * 24, owner="me")
JPEG = b"\xff\xd8\xff\xe0" + bytes(1000)
CLASSIFY, CREATE = "/shoal.v1.Pictures/Classify", "/shoal.v1.Pictures/Create"


def begin(path: str, caller: str = Identity.of(KEY).write()) -> ProcessingRequest:
    message = ProcessingRequest()
    for name, value in ((":path", path), (CLIENT_HEADER, caller)):
        message.request_headers.headers.headers.add(key=name, raw_value=value.encode())
    return message


def parts(picture: bytes, *, pieces: int = 2, size: int = 100, **fields: Any) -> list[ProcessingRequest]:
    """As the transcoder frames it: messages of a part of the picture, cut anywhere."""
    step = max(1, len(picture) // pieces)
    body = b""
    for start in range(0, max(1, len(picture)), step):
        told = PictureCall()
        told.picture.data = picture[start : start + step]
        first = pb.ImageRequest(**fields).SerializeToString() if start == 0 else b""
        body += frame(first + told.SerializeToString())
    cut = [ProcessingRequest() for _ in range(0, len(body), size)]
    for number, message in enumerate(cut):
        message.request_body.body = body[number * size : (number + 1) * size]
    cut[-1].request_body.end_of_stream = True
    return cut


def _check(picture: bytes) -> None:
    if picture.endswith(b"damaged"):
        raise InvalidRequest("the picture is damaged")


class Rig:
    def __init__(self, max_bytes: int = 2000) -> None:
        self.store = MemoryStore()
        self.intake = PictureIntake(self.store, max_bytes, _check)
        self.door = PictureDoor(self.intake, Access(KeyRing([KEY])))

    async def ask(self, *messages: ProcessingRequest) -> list[ProcessingResponse]:
        async def sent() -> AsyncIterator[ProcessingRequest]:
            for message in messages:
                yield message

        context: Any = None
        return [answer async for answer in self.door.process(sent(), context)]

    async def refused(self, *messages: ProcessingRequest) -> tuple[int, int, str]:
        """HTTP's status, gRPC's code and the text; and nothing is left behind."""
        (answer,) = await self.ask(*messages)
        told = json.loads(answer.immediate_response.body)
        assert not self.stored
        self.assert_let_go()
        return answer.immediate_response.status.code, told["code"], told["message"]

    def assert_let_go(self) -> None:
        assert self.intake.held_bytes == 0

    @property
    def stored(self) -> dict[str, bytes]:
        found = [each["path"] for batch in obstore.list(self.store) for each in batch]
        return {path: bytes(obstore.get(self.store, path).bytes()) for path in found}


async def test_the_call_goes_on_with_the_pictures_uuid_and_what_it_asks_for() -> None:
    rig = Rig()
    headers, body = await rig.ask(begin(CLASSIFY), *parts(JPEG, model_name="m", top_k=3))
    assert headers.WhichOneof("response") == "request_headers"
    streamed = body.request_body.response.body_mutation.streamed_response
    assert streamed.end_of_stream
    (message,) = Frames(1000).add(streamed.body)
    request = pb.ImageRequest.FromString(message)
    assert rig.stored == {f"me/{request.image_uuid}.jpg": JPEG}
    assert (request.model_name, request.top_k, request.api_key) == ("m", 3, "")
    rig.assert_let_go()


async def test_one_that_asks_nothing_is_answered_with_the_uuid() -> None:
    rig = Rig()
    (answer,) = await rig.ask(begin(CREATE), *parts(JPEG))
    uuid = json.loads(answer.immediate_response.body)["image_uuid"]
    assert (answer.immediate_response.status.code, rig.stored) == (200, {f"me/{uuid}.jpg": JPEG})


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (b"", (400, 3, "the body is no JPEG, PNG or WebP picture: it is empty")),
        (b"<html>", (400, 3, "the body is no JPEG, PNG or WebP picture: it begins with b'<")),
        (b"RIFF\0\0\0\0AVI " + bytes(99), (400, 3, "it begins with b'RIFF")),
        (b"\xff", (400, 3, "it begins with b'\\xff'")),
        (JPEG + b"damaged", (400, 3, "the picture is damaged")),
        (JPEG * 3, (413, 8, "a picture may have 2000 bytes (object_store.max_image_bytes)")),
    ],
)
@pytest.mark.parametrize("pieces", [1, 50])
async def test_what_is_no_picture_or_too_large_is_refused_and_not_stored(
    picture: bytes, told: tuple[int, int, str], pieces: int
) -> None:
    status, code, text = await Rig().refused(begin(CREATE), *parts(picture, pieces=pieces))
    assert (status, code) == told[:2]
    assert text.startswith(told[2]) or told[2] in text


@pytest.mark.parametrize("caller", ["", "nobody", "k", Identity.of(Key(id="k", key="x" * 24, owner="you")).write()[:9]])
async def test_a_caller_whom_the_router_does_not_name_is_refused(caller: str) -> None:
    status, code, _ = await Rig().refused(begin(CREATE, caller), *parts(JPEG))
    assert (status, code) == (401, 16)


async def test_a_message_that_is_compressed_or_larger_than_the_router_makes_is_refused() -> None:
    for body in (b"\1\0\0\0\1x", b"\0\xff\xff\xff\xff"):
        message = ProcessingRequest()
        message.request_body.body = body
        status, code, _ = await Rig().refused(begin(CREATE), message)
        assert (status, code) == (400, 3)


async def test_pictures_beyond_the_memory_for_them_are_told_when_to_come_again() -> None:
    rig = Rig(max_bytes=128 * 2**20)
    held = [rig.intake.reserve(owner, 80 * 2**20) for owner in ("a", "b", "c")]
    (answer,) = await rig.ask(begin(CREATE), *parts(JPEG + bytes(20 * 2**20), pieces=20, size=2**20))
    assert answer.immediate_response.status.code == 429
    (hint,) = answer.immediate_response.headers.set_headers
    assert (hint.header.key, hint.header.raw_value) == ("retry-after", b"1")
    for each in held:
        each.release()
    rig.assert_let_go()


async def test_a_caller_who_leaves_halfway_leaves_nothing() -> None:
    rig = Rig()
    halfway = asyncio.Event()

    async def sent() -> AsyncIterator[ProcessingRequest]:
        for message in (begin(CREATE), *parts(JPEG, pieces=20)[:5]):
            yield message
        halfway.set()
        await asyncio.Event().wait()

    async def ask() -> Iterable[ProcessingResponse]:
        context: Any = None
        return [answer async for answer in rig.door.process(sent(), context)]

    asking = asyncio.create_task(ask())
    await halfway.wait()
    assert rig.intake.held_bytes > 0
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not rig.stored
    rig.assert_let_go()


async def test_a_caller_who_leaves_while_it_is_stored_leaves_nothing() -> None:
    rig = Rig()
    storing = asyncio.create_task(rig.intake.store("me/", JPEG))
    await asyncio.sleep(0)
    storing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await storing
    assert not rig.stored


@pytest.mark.parametrize(
    "start", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP"], ids=["JPEG", "PNG", "WebP"]
)
def test_pictures_are_known_by_their_first_bytes(start: bytes) -> None:
    assert is_picture(start + b"more")
    assert not is_picture(start[:-1])
    assert not is_picture(b"x" + start)
