"""A real gRPC server and a real PUT server, in the test's own process, with scripted behaviour."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
import grpc.aio
from aiohttp import web

from shoal.client import Retry
from shoal.pictures.mask import encode_png
from shoal.v1 import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    Context = grpc.aio.ServicerContext[object, object]

API_KEY = "test-key"
PROMPT = Retry(uniform=lambda _low, _high: 0.0)
"""Tries again at once."""
KNOWN = "00000000-0000-4000-8000-000000000001"
MISSING = "00000000-0000-4000-8000-000000000404"


@dataclass
class FakeService:
    """Everything is class 7, and has the mask 0 1 1 / 0 1 unseen; ``failures`` are answered first, one a call."""

    failures: deque[grpc.StatusCode] = field(default_factory=deque)
    put_failures: deque[int] = field(default_factory=deque)
    reply_uuid: str | None = None
    gate: asyncio.Event | None = None
    lifetime_seconds: int = 900
    max_bytes: int = 1000
    calls: Counter[str] = field(default_factory=Counter)
    asked: list[int] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    requests: list[pb.ImageRequest] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    knows_regions: bool = True
    part_code: int = 4
    """What the second step of a pipeline says of the only box; 0: that it is class 7."""
    part_calls: int = 1
    """How often that step was asked."""
    mask_width: int = 3
    """What a mask of 3 x 2 says of itself."""
    in_flight: int = 0
    most_in_flight: int = 0
    started: asyncio.Event = field(default_factory=asyncio.Event)
    target: str = ""
    put_root: str = ""

    async def classify(self, request: pb.ImageRequest, context: Context) -> pb.ClassifyReply:
        async with self._call("Classify", request, context):
            found = pb.Class(index=7, label="cock", probability=0.75)
            if request.regions and self.knows_regions:
                one = pb.ClassifyReply(**self._common(request), classes=[found], timing=self._timing())
                refused = pb.ClassifyRegionReply(code=4, message="too late")
                parts = [pb.ClassifyRegionReply(reply=one) for _ in request.regions[1:]]
                return pb.ClassifyReply(**self._common(request), region_replies=[refused, *parts])
            return pb.ClassifyReply(**self._common(request), model_version=1, classes=[found], timing=self._timing())

    async def detect(self, request: pb.ImageRequest, context: Context) -> pb.DetectReply:
        async with self._call("Detect", request, context):
            found = pb.Box(x=0.25, y=0.5, width=0.125, height=0.25, index=0, label="text", score=0.5)
            return pb.DetectReply(**self._common(request), model_version=1, boxes=[found], timing=self._timing())

    async def segment(self, request: pb.ImageRequest, context: Context) -> pb.SegmentReply:
        async with self._call("Segment", request, context):
            return pb.SegmentReply(
                **self._common(request),
                model_version=1,
                width=self.mask_width,
                height=2,
                class_bytes=1,
                labels=["background", "thing"],
                timing=self._timing(),
                **_mask(request.mask_form),
            )

    async def analyze(self, request: pb.ImageRequest, context: Context) -> pb.AnalyzeReply:
        async with self._call("Analyze", request, context):
            box = pb.Box(x=0.25, y=0.5, width=0.125, height=0.25, label="bird", score=0.5)
            says = pb.StepResult(step="then.0", model_name="species", code=self.part_code)
            if self.part_code:
                says.message = "too late"
            else:
                says.classes.add(index=7, label="cock", probability=0.75)
            timing, calls = self._timing(), self.part_calls
            first = pb.StepTiming(step="finder", model_name="finder", calls=1, total_us=8000, timing=timing)
            second = pb.StepTiming(
                step="then.0",
                model_name="species",
                calls=calls,
                failed=calls if self.part_code else 0,
                total_us=6000 if calls else 0,
                timing=None if self.part_code else timing,
            )
            return pb.AnalyzeReply(
                image_uuid=self.reply_uuid or request.image_uuid,
                model_name=request.model_name,
                findings=[pb.Finding(box=box, results=[says])],
                steps=[first, second],
            )

    async def create(self, request: pb.CreateUploadsRequest, context: Context) -> pb.CreateUploadsReply:
        self.calls["Create"] += 1
        self.asked.append(request.count)
        names = [str(uuid4()) for _ in range(request.count or 1)]
        return pb.CreateUploadsReply(
            uploads=[pb.Upload(image_uuid=name, put_url=f"{self.put_root}/{name}.jpg?sig=a%2Fb") for name in names],
            expires_in_seconds=self.lifetime_seconds,
            max_bytes=self.max_bytes,
        )

    async def put(self, request: web.Request) -> web.Response:
        self.calls["PUT"] += 1
        body = await request.read()
        if self.put_failures:
            return web.Response(status=self.put_failures.popleft())
        if request.raw_path.rpartition("?")[2] != "sig=a%2Fb":
            return web.Response(status=403)
        self.objects[request.match_info["name"]] = body
        return web.Response()

    @asynccontextmanager
    async def _call(self, method: str, request: pb.ImageRequest, context: Context) -> AsyncIterator[None]:
        self.calls[method] += 1
        self.requests.append(request)
        self.metadata.append({key: str(value) for key, value in context.invocation_metadata() or ()})
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.started.set()
        try:
            if self.failures:
                await context.abort(self.failures.popleft(), "scripted")
            if request.image_uuid == MISSING:
                await context.abort(grpc.StatusCode.NOT_FOUND, "no such image")
            if self.gate is not None:
                await self.gate.wait()
            yield
        finally:
            self.in_flight -= 1

    def _common(self, request: pb.ImageRequest) -> dict[str, Any]:
        common: dict[str, Any] = {
            "image_uuid": self.reply_uuid or request.image_uuid,
            "model_name": request.model_name,
        }
        if self.knows_regions and request.HasField("region"):
            common["region"] = request.region
        return common

    def _timing(self) -> pb.Timing:
        return pb.Timing(queue_us=1, fetch_us=2, decode_us=3, compute_us=4, batch_size=5)

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        inference = {
            "Classify": grpc.unary_unary_rpc_method_handler(
                self.classify, pb.ImageRequest.FromString, pb.ClassifyReply.SerializeToString
            ),
            "Detect": grpc.unary_unary_rpc_method_handler(
                self.detect, pb.ImageRequest.FromString, pb.DetectReply.SerializeToString
            ),
            "Segment": grpc.unary_unary_rpc_method_handler(
                self.segment, pb.ImageRequest.FromString, pb.SegmentReply.SerializeToString
            ),
            "Analyze": grpc.unary_unary_rpc_method_handler(
                self.analyze, pb.ImageRequest.FromString, pb.AnalyzeReply.SerializeToString
            ),
        }
        create = grpc.unary_unary_rpc_method_handler(
            self.create, pb.CreateUploadsRequest.FromString, pb.CreateUploadsReply.SerializeToString
        )
        return [
            grpc.method_handlers_generic_handler("shoal.v1.Inference", inference),
            grpc.method_handlers_generic_handler("shoal.v1.Uploads", {"Create": create}),
        ]


def _mask(form: int) -> dict[str, Any]:
    indices = bytes([0, 1, 1, 0, 1, 255])
    counts = {1: [2, 3, 1], 0: [0, 2, 4]} if form == pb.MASK_FORM_RUNS else {1: [], 0: []}
    regions = [
        pb.Region(index=1, label="thing", pixels=3, counts=counts[1]),
        pb.Region(index=0, label="background", pixels=2, counts=counts[0]),
    ]
    if form == pb.MASK_FORM_RUNS:
        return {"regions": regions}
    if form == pb.MASK_FORM_CLASS_MAP:
        return {"regions": regions, "class_map": indices}
    return {"regions": regions, "mask_png": encode_png((3, 2), 1, indices)}


@asynccontextmanager
async def serving(service: FakeService | None = None, port: int = 0) -> AsyncIterator[FakeService]:
    """Serves from the running loop, on ``port`` (0: a free one)."""
    service = service or FakeService()
    server = grpc.aio.server(handlers=service.handlers())
    service.target = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    app = web.Application()
    app.router.add_put("/{name}", service.put)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.put_root = f"http://127.0.0.1:{runner.addresses[0][1]}"
    await server.start()
    try:
        yield service
    finally:
        await server.stop(0)
        await runner.cleanup()


@contextmanager
def serving_in_thread() -> Iterator[FakeService]:
    """Serves from a thread, for code without an event loop."""
    ready, box = Event(), []

    async def serve() -> None:
        async with serving() as service:
            stop = asyncio.Event()
            box.extend([service, asyncio.get_running_loop(), stop])
            ready.set()
            await stop.wait()

    thread = Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    service, loop, stop = box
    try:
        yield service
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
