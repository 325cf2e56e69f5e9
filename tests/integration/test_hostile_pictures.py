"""Pictures that harm their decoder harm themselves alone: neighbours are answered, and no worker is lost."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import struct
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import obstore
import psutil
import pytest
from hostile_pictures import png, png_chunks, raw_png
from PIL import Image

from shoal.errors import Code
from shoal.pictures.objectstore import load_credentials, open_store
from shoal.pictures.reference import object_key
from shoal.service import api_keys
from shoal.service.home import Home
from shoal.service.spec import ObjectStore as StoreSettings
from shoal.v1 import inference_pb2 as pb
from support.pictures import encode, quadrants
from support.raw_calls import Answer, Call, raw_client
from support.stack import Stack, running_stack
from support.tiny_models import add_tiny_classifier

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore.store import ObjectStore

    from shoal.service.api_keys import Key

SERVICE = "pools: {{default: {{engine: {engine}, decode_processes: 1, max_decode_cpu_seconds: 0.3}}}}"
WORKER = "worker-default-1"
PATIENCE_SECONDS = 60.0
PNG = encode(quadrants(), "PNG")


def two_headers() -> bytes:
    chunks = png_chunks(PNG)
    return png([chunks[0], (b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 16, 6, 0, 0, 0)), *chunks[1:]])


def lone_frame() -> bytes:
    """An animation whose only frame is larger than its canvas, and has data in chunks of frames alone."""
    header, *rest = png_chunks(PNG)
    frame = (b"fcTL", struct.pack(">IIIIIHHBB", 0, 9000, 9000, 7, 7, 1, 10, 0, 0))
    data = [(b"fdAT", struct.pack(">I", 1) + payload) for name, payload in rest if name == b"IDAT"]
    return png([header, (b"acTL", struct.pack(">II", 1, 0)), frame, *data, (b"IEND", b"")])


def huge_chunk() -> bytes:
    return PNG[:33] + struct.pack(">I", 2**32 - 1) + b"iCCP"


def large_webp() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "WEBP", lossless=True)
    (bits,) = struct.unpack_from("<I", file.getvalue(), 21)
    return file.getvalue()[:21] + struct.pack("<I", 9999 | 9999 << 14 | bits & 0xF0000000) + file.getvalue()[25:]


POISON = {
    "two headers": two_headers(),
    "a lone frame": lone_frame(),
    "a chunk of 4 GiB": huge_chunk(),
    "a large WebP": large_webp(),
    "much to inflate": raw_png(6000, 6000, (16, 6, 4), 1, None),
}


@dataclass(frozen=True)
class Service:
    stack: Stack
    store: ObjectStore
    hostile: Key
    neighbour: Key

    def put(self, data: bytes, owner: Key) -> Call:
        """A call for a picture that is there."""
        name = str(uuid.uuid4())
        obstore.put(self.store, object_key(owner.prefix, name), data, use_multipart=False)
        request = pb.ImageRequest(api_key=owner.key, image_uuid=name, model_name="tiny")
        return Call(request.SerializeToString(), owner.key, "tiny")


@pytest.fixture(scope="module", params=["openvino", "triton"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = Home(tmp_path_factory.mktemp("hostile") / "home")
    hostile, neighbour = (api_keys.create(home.keys, owner) for owner in ("hostile", "neighbour"))
    engine = request.param
    with running_stack(
        home.root,
        models=lambda store: add_tiny_classifier(store, runner="python" if engine == "triton" else None),
        service=SERVICE.format(engine=engine),
    ) as stack:
        store = open_store(StoreSettings(), load_credentials(home.store_credentials), stack.state().store_url)
        yield Service(stack, store, hostile, neighbour)


async def beside_neighbours(service: Service, hostile: list[Call], timeout: float) -> list[Answer]:
    """The answers to ``hostile``; meanwhile a neighbour calls without a pause, and each of its calls is answered OK."""
    quick = [
        service.put(encode(Image.new("RGB", (64, 48), "red"), form), service.neighbour) for form in ("JPEG", "PNG")
    ]
    stop = asyncio.Event()

    async def neighbour(call: Call) -> int:
        async with raw_client(service.stack.target) as client:
            answered = 0
            while not stop.is_set():
                assert (await client.send(call, PATIENCE_SECONDS)).label == "red"
                answered += 1
            return answered

    calling = [asyncio.create_task(neighbour(call)) for call in quick]
    try:
        async with raw_client(service.stack.target) as client:
            answers = await asyncio.gather(*(client.send(call, timeout) for call in hostile))
    finally:
        stop.set()
        counts = await asyncio.gather(*calling)
    assert all(counts)
    return answers


@pytest.mark.parametrize("name", POISON)
async def test_a_hostile_picture_is_refused_and_harms_nobody(service: Service, name: str) -> None:
    worker = service.stack.part(WORKER)
    call = service.put(POISON[name], service.hostile)
    answers = await beside_neighbours(service, [call] * 4, PATIENCE_SECONDS)
    assert {answer.code for answer in answers} == {Code.INVALID_ARGUMENT}, answers
    assert all(answer.message for answer in answers)
    assert service.stack.part(WORKER) == worker, "the worker was restarted"


async def test_work_for_callers_who_have_left_ends(service: Service) -> None:
    """Each of these would take its 0.3 s of CPU: far longer in all than this test has patience."""
    calls = [service.put(POISON["much to inflate"], service.hostile)] * 400
    answers = await beside_neighbours(service, calls, 1.0)
    left = {Code.DEADLINE_EXCEEDED, Code.INVALID_ARGUMENT, Code.RESOURCE_EXHAUSTED}
    assert {answer.code for answer in answers} <= left
    (after,) = await beside_neighbours(service, [service.put(PNG, service.hostile)], 20.0)
    assert after.code is Code.OK


async def test_a_decoder_that_is_killed_from_outside_is_replaced(service: Service) -> None:
    worker = service.stack.part(WORKER)
    starters = children(worker.pid)
    assert starters
    for pid in starters:
        os.kill(pid, signal.SIGKILL)
    (after,) = await beside_neighbours(service, [service.put(PNG, service.hostile)], PATIENCE_SECONDS)
    assert after.code is Code.OK
    assert service.stack.part(WORKER) == worker
    assert not set(starters) & set(children(worker.pid))


def children(pid: int) -> list[int]:
    """Of a worker: what starts its decoders."""
    found = psutil.Process(pid).children()
    return [child.pid for child in found if "shoal.worker.decoders.decoder_process" in child.cmdline()]
