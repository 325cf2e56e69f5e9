from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from shoal import batching
from shoal.batcher.core import open_channel
from shoal.batcher.dispatch import Dispatcher
from shoal.batching.host import Host
from shoal.batching.service import BatchingService
from shoal.batching.v1 import batching_pb2
from shoal.errors import ConfigurationError, InvalidRequest
from shoal.runtime.endpoint import Endpoint
from shoal.v1 import inference_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

UPPER = "/text.v1.Text/Upper"
LENGTH = "/text.v1.Text/Length"


@pytest.fixture
def server() -> batching.Server:
    """Two methods with settings of their own."""
    made = batching.Server()

    @made.batched(UPPER, StringValue, StringValue, batching.BatchingSettings(max_batch_size=4))
    async def upper(requests: Sequence[StringValue]) -> list[StringValue]:
        return [StringValue(value=request.value.upper()) for request in requests]

    @made.batched(LENGTH, bytes, bytes)
    def length(requests: Sequence[bytes]) -> list[bytes]:
        assert len(requests) == 1
        return [str(len(request)).encode() for request in requests]

    return made


@contextlib.asynccontextmanager
async def dispatcher(worker: Endpoint) -> AsyncIterator[Dispatcher]:
    made = Dispatcher(open_channel(f"ipv4:{worker}", workers=True), "test")
    try:
        yield made
    finally:
        await made.close()


async def submit(to: Dispatcher, method: str, message: bytes) -> bytes:
    return await to.submit(method, "default", "", message, 5.0)


async def test_each_method_is_batched_with_its_own_settings(server: batching.Server) -> None:
    async with server.serving("127.0.0.1:0") as worker, dispatcher(worker) as batcher:
        words = [StringValue(value=f"word {n}") for n in range(8)]
        lengths = [submit(batcher, LENGTH, bytes(n)) for n in range(4)]
        answers = await asyncio.gather(*(submit(batcher, UPPER, word.SerializeToString()) for word in words), *lengths)
    assert [StringValue.FromString(answer).value for answer in answers[:8]] == [f"WORD {n}" for n in range(8)]
    assert answers[8:] == [b"0", b"1", b"2", b"3"]


async def test_a_method_that_is_not_served_is_refused_with_those_that_are(server: batching.Server) -> None:
    async with server.serving("127.0.0.1:0") as worker, dispatcher(worker) as batcher:
        with pytest.raises(InvalidRequest) as caught:
            await submit(batcher, "/text.v1.Text/Lower", b"")
    assert UPPER in str(caught.value)
    assert LENGTH in str(caught.value)


async def test_health_and_reflection_name_the_services(server: batching.Server) -> None:
    async with server.serving("127.0.0.1:0") as worker, grpc.aio.insecure_channel(str(worker)) as channel:
        for service in ("", "text.v1.Text", "shoal.batching.v1.Batching"):
            reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        names = await asyncio.to_thread(_services, str(worker))
    assert {"text.v1.Text", "shoal.batching.v1.Batching"} <= set(names)


async def test_who_is_not_ready_is_alive_all_the_same() -> None:
    host = Host(BatchingService(), ())
    worker = await host.start(Endpoint("127.0.0.1", 0))
    async with grpc.aio.insecure_channel(str(worker)) as channel:
        answers = {
            service: await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
            for service in ("", "liveness")
        }
    await host.drain()
    assert {service: answer.status for service, answer in answers.items()} == {
        "": health_pb2.HealthCheckResponse.NOT_SERVING,
        "liveness": health_pb2.HealthCheckResponse.SERVING,
    }


def _services(target: str) -> Sequence[str]:
    with grpc.insecure_channel(target) as channel:
        return ProtoReflectionDescriptorDatabase(channel).get_services()


async def test_what_is_in_flight_is_answered_before_the_end() -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    server = batching.Server()

    @server.batched(UPPER, bytes, bytes)
    async def slow(requests: Sequence[bytes]) -> Sequence[bytes]:
        begun.set()
        await go.wait()
        return requests

    async with contextlib.AsyncExitStack() as stack:
        worker = await stack.enter_async_context(server.serving("127.0.0.1:0"))
        async with dispatcher(worker) as batcher:
            call = asyncio.ensure_future(submit(batcher, UPPER, b"x"))
            await begun.wait()
            closing = asyncio.ensure_future(stack.aclose())
            await asyncio.sleep(0)
            go.set()
            assert await call == b"x"
        await closing


@pytest.mark.parametrize(
    ("method", "request_kind", "reply_kind", "reason"),
    [
        ("Upper", bytes, bytes, "expected /package.Service/Method"),
        ("/text.v1.Text/", bytes, bytes, "expected /package.Service/Method"),
        ("/text.v1.Text/UpperStream", bytes, bytes, "for the stream of /text.v1.Text/Upper"),
        ("/shoal.v1.Inference/Clasify", inference_pb2.ImageRequest, bytes, "shoal.v1.Inference has Classify"),
        ("/shoal.v1.Inference/Classify", inference_pb2.ClassifyReply, bytes, "has shoal.v1.ImageRequest"),
        ("/shoal.v1.Inference/Classify", inference_pb2.ImageRequest, inference_pb2.DetectReply, "ClassifyReply"),
        ("/shoal.batching.v1.Batching/Compute", batching_pb2.BatchChunk, bytes, "is streaming"),
    ],
)
def test_a_method_that_cannot_be_right_is_refused_at_the_start(
    method: str, request_kind: Any, reply_kind: Any, reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        batching.Server().batched(method, request_kind, reply_kind)


def test_a_method_has_one_function(server: batching.Server) -> None:
    with pytest.raises(ConfigurationError, match="has a function already"):
        server.batched(UPPER.removeprefix("/"), StringValue, StringValue)


def test_settings_are_checked(server: batching.Server) -> None:
    with pytest.raises(ConfigurationError, match="max_batch_size is 0"):
        server.batched("/a.B/C", bytes, bytes, batching.BatchingSettings(max_batch_size=0))


async def test_a_server_without_functions_does_not_start() -> None:
    with pytest.raises(ConfigurationError, match="no function"):
        async with batching.Server().serving("127.0.0.1:0"):
            pass


def test_a_start_that_fails_is_a_line_and_an_exit_code(
    server: batching.Server, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as ended:
        batching.run(server, f"127.0.0.1:{taken.getsockname()[1]}")
    assert ended.value.code == 2
    assert "is the port in use?" in caplog.text
