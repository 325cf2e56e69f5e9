"""The batcher as a process, behind each of its doors, before a real batching service."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import grpc
import pytest

from shoal.batching.v1 import batching_pb2
from shoal.errors import Code
from shoal.modelconfig.batching import BatchingSettings
from support.batcher_process import METADATA, batcher
from support.scripted_batches import ScriptedHandler, scripted_worker

if TYPE_CHECKING:
    from support.batcher_process import BatcherProcess

DEPTH = 'shoal_batcher_queue_depth{{model="m"}} {}'


async def wait_for_metric(b: BatcherProcess, line: str) -> None:
    """Returns when the batcher's metrics have this line."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{b.metrics}") as session, asyncio.timeout(60):
        while line not in await (await session.get("/metrics")).text():  # another process's
            await asyncio.sleep(0.02)


@pytest.fixture(params=["envoy", "grpcio"])
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def running() -> ScriptedHandler:
    handler = ScriptedHandler()
    handler.go.set()
    return handler


async def test_calls_of_many_clients_share_batches(door: str) -> None:
    handler = running()
    handler.settings = replace(handler.settings, max_queue_delay_microseconds=100_000)  # a busy machine takes its time
    async with scripted_worker({"m": handler}) as worker, batcher(door, "--balancer", worker.target) as b:
        messages = [bytes([n]) * n for n in range(100)]
        assert await asyncio.gather(*(b.ask(message) for message in messages)) == messages
    assert set(handler.methods) == {"/any.Service/Method"}
    assert len(handler.batches) < 60
    assert {item.owner for batch in handler.batches for item in batch} == {"key-1"}


async def test_each_status_and_its_text_reach_the_caller(door: str) -> None:
    handler = running()
    handler.answer = lambda item: batching_pb2.BatchItemResult(
        index=item.index, code=Code.INVALID_ARGUMENT, message="100% brökén"
    )
    async with scripted_worker({"m": handler}) as worker, batcher(door, "--balancer", worker.target) as b:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await b.ask(b"x")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "100% brökén"


async def test_the_callers_deadline_reaches_the_worker_and_is_kept(door: str) -> None:
    handler = ScriptedHandler()
    async with scripted_worker({"m": handler}) as worker, batcher(door, "--balancer", worker.target) as b:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await b.ask(b"x", timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        item = await handler.arrived.get()
        assert 0 < item.timeout_us <= 300_000
        handler.go.set()


async def test_without_the_model_header_a_call_is_invalid(door: str) -> None:
    async with scripted_worker({}) as worker, batcher(door, "--balancer", worker.target) as b:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await b.call(b"x", timeout=60)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_caller_that_leaves_harms_nobody(door: str) -> None:
    handler = ScriptedHandler()
    async with scripted_worker({"m": handler}) as worker, batcher(door, "--balancer", worker.target) as b:
        leaves, stays = (asyncio.ensure_future(b.ask(name)) for name in (b"leaves", b"stays"))
        for _ in range(2):
            await handler.arrived.get()
        leaves.cancel()
        handler.go.set()
        assert await stays == b"stays"


async def test_a_caller_that_leaves_the_queue_costs_the_worker_nothing(door: str) -> None:
    handler = ScriptedHandler(BatchingSettings())
    async with scripted_worker({"m": handler}) as worker, batcher(door, "--balancer", worker.target) as b:
        busy = [asyncio.ensure_future(b.ask(b"busy")) for _ in range(2)]
        for _ in busy:
            await handler.arrived.get()
        leaves, last = (asyncio.ensure_future(b.ask(name)) for name in (b"leaves", b"last"))
        await wait_for_metric(b, DEPTH.format(2.0))
        leaves.cancel()
        await wait_for_metric(b, DEPTH.format(1.0))
        handler.go.set()
        await asyncio.gather(*busy, last)
    assert [item.request for batch in handler.batches for item in batch] == [b"busy", b"busy", b"last"]


async def test_a_full_queue_refuses_at_once(door: str) -> None:
    handler = ScriptedHandler(BatchingSettings(max_queue_size=1))
    handler.go.set()
    async with scripted_worker({"m": handler}) as worker, batcher(door, "--balancer", worker.target) as b:
        await b.ask(b"the batcher knows the settings now")
        handler.go.clear()
        calls = [asyncio.ensure_future(b.ask(b"x")) for _ in range(4)]
        refused, _ = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await refused.pop()
        handler.go.set()
        await asyncio.gather(*calls, return_exceptions=True)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "queue is full" in (caught.value.details() or "")


async def test_sigterm_answers_what_is_in_flight(door: str) -> None:
    handler = ScriptedHandler(BatchingSettings(instance_count=5))  # a permit for each, however slowly they come
    async with scripted_worker({"m": handler}) as worker, batcher(door, "--balancer", worker.target) as b:
        calls = [asyncio.ensure_future(b.ask(bytes([n]))) for n in range(5)]
        for _ in calls:
            await handler.arrived.get()
        b.process.send_signal(signal.SIGTERM)
        handler.go.set()
        assert await asyncio.gather(*calls) == [bytes([n]) for n in range(5)]
        assert await b.process.wait() == 0


async def test_answers_are_counted(door: str) -> None:
    async with scripted_worker({"m": running()}) as worker, batcher(door, "--balancer", worker.target) as b:
        await b.ask(b"x")
        await wait_for_metric(b, 'shoal_batcher_requests_total{code="OK",model="m",priority="interactive"} 1.0')


async def test_a_path_that_is_no_method_is_unimplemented(door: str) -> None:
    async with scripted_worker({"m": running()}) as worker, batcher(door, "--balancer", worker.target) as b:
        for path in ("/any.Service/%ff", "/any.Service/%C3%A9", "/any.Service/%00", "/any", "/a/b/c"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await b.channel.unary_unary(path)(b"x", metadata=METADATA, timeout=60)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED, path
            assert await b.ask(b"x") == b"x", path


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


async def test_an_envoy_that_dies_while_it_drains_is_told() -> None:
    handler = ScriptedHandler()
    async with scripted_worker({"m": handler}) as worker, batcher("envoy", "--balancer", worker.target) as b:
        call = asyncio.ensure_future(b.ask(b"x"))
        await handler.arrived.get()
        b.process.send_signal(signal.SIGTERM)
        for pid in children(b.process.pid):
            os.kill(pid, signal.SIGKILL)
        assert await asyncio.wait_for(b.process.wait(), 60) != 0
        with pytest.raises(grpc.aio.AioRpcError):
            await call


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_clients_may_compress(door: str, algorithm: grpc.Compression) -> None:
    async with scripted_worker({"m": running()}) as worker, batcher(door, "--balancer", worker.target) as b:
        message = b"a reference" * 100
        assert await b.call(message, metadata=METADATA, timeout=60, compression=algorithm) == message
        bomb = bytes(20 * 2**20)
        with pytest.raises(grpc.aio.AioRpcError, match="larger than"):
            await b.call(bomb, metadata=METADATA, timeout=60, compression=algorithm)
        assert await b.ask(b"x") == b"x"
