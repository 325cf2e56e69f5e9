"""The example of docs/batch-your-own-service.md under load: real workers, the real door, the ordinary stub."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from nearest_pb2 import Neighbour, Query
from nearest_pb2_grpc import SearchStub
from worker import VECTORS, nearest

from shoal import batching
from support.batcher_process import batcher, until_healthy
from support.metrics import sample
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

WORKER = Path(__file__).resolve().parents[2] / "examples" / "nearest" / "worker.py"
METHOD = "/nearest.v1.Search/Nearest"
CALLERS = 64
ZEROS = [0.0] * 256
BAD = {
    "too short": Query(vector=ZEROS[:-1]).SerializeToString(),
    "empty": b"",
    "all zero": Query(vector=ZEROS).SerializeToString(),
    "not a number": Query(vector=[float("nan"), *ZEROS[1:]]).SerializeToString(),
    "infinite": Query(vector=[float("inf"), *ZEROS[1:]]).SerializeToString(),
    "not a query": b"\xff\xff\xff",
}


@pytest.fixture(params=["envoy", "grpcio"])
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class WorkerProcess:
    """One ``python worker.py``."""

    def __init__(self, process: asyncio.subprocess.Process, listen: str, metrics: str) -> None:
        self.process = process
        self.listen = listen
        self.url = f"http://{metrics}/metrics"

    async def executed(self) -> tuple[float, float]:
        """Batches, and the items in them."""
        return await sample(self.url, "shoal_worker_batch_size_count"), await sample(
            self.url, "shoal_worker_batch_size_sum"
        )


@contextlib.asynccontextmanager
async def workers(count: int) -> AsyncIterator[list[WorkerProcess]]:
    """So many, once they are healthy."""
    async with contextlib.AsyncExitStack() as stack:
        started = [await stack.enter_async_context(_worker()) for _ in range(count)]
        for each in started:
            async with grpc.aio.insecure_channel(each.listen) as channel:
                await until_healthy(channel)
        yield started


@contextlib.asynccontextmanager
async def _worker() -> AsyncIterator[WorkerProcess]:
    listen, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(sys.executable, str(WORKER), listen, metrics)
    try:
        yield WorkerProcess(process, listen, metrics)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def before(started: Iterable[WorkerProcess]) -> Sequence[str]:
    """The batcher's arguments for these workers."""
    return [argument for each in started for argument in ("--worker", each.listen)]


class Load:
    """A closed loop of callers, each good query a noisy vector of the collection."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.outcomes: Counter[str] = Counter()
        self.answered = asyncio.Condition()
        self.enough = False
        self._good: Any = SearchStub(channel).Nearest
        self._raw: Any = channel.unary_unary(METHOD)
        self._numbers = iter(range(sys.maxsize))
        self._noise = np.random.default_rng(seed=2)

    async def run(self, queries: int = sys.maxsize, bad_every: int = 0) -> None:
        async def caller() -> None:
            while not self.enough and (number := next(self._numbers)) < queries:
                bad = bad_every and number % bad_every == bad_every - 1
                outcome = await (self._send_bad(number // bad_every) if bad else self._send_good(number))
                async with self.answered:
                    self.outcomes[outcome] += 1
                    self.answered.notify_all()

        await asyncio.gather(*(caller() for _ in range(CALLERS)))

    async def until(self, more: int) -> None:
        """Waits for so many more answers."""
        async with self.answered, asyncio.timeout(60):
            wanted = self.outcomes.total() + more
            await self.answered.wait_for(lambda: self.outcomes.total() >= wanted)

    async def _send_good(self, number: int) -> str:
        expected = number % len(VECTORS)
        vector = VECTORS[expected] + 0.02 * self._noise.standard_normal(VECTORS.shape[1], np.float32)
        try:
            answer = await self._good(Query(vector=vector), timeout=60)
        except grpc.aio.AioRpcError as error:
            return f"good: {error.code().name} {error.details()}"
        return "good: found" if answer.id == expected and answer.cosine > 0.9 else f"good: wrong {answer.id}"

    async def _send_bad(self, number: int) -> str:
        name = list(BAD)[number % len(BAD)]
        try:
            await self._raw(BAD[name], timeout=60)
        except grpc.aio.AioRpcError as error:
            return f"bad: {error.code().name}"
        return f"bad: {name} was answered"


async def test_under_load_batches_form_and_bad_items_fail_alone(door: str) -> None:
    async with workers(2) as started, batcher(door, *before(started)) as b:
        load = Load(b.channel)
        await load.run(queries=300, bad_every=20)
        executed = [await each.executed() for each in started]
    assert load.outcomes == {"good: found": 285, "bad: INVALID_ARGUMENT": 15}
    batches, items = (sum(each) for each in zip(*executed, strict=True))
    assert items / batches > 3


async def test_workers_share_the_load(door: str) -> None:
    async with workers(2) as started, batcher(door, *before(started)) as b:
        load = Load(b.channel)
        running = asyncio.ensure_future(load.run())
        async with asyncio.timeout(60):  # the first to connect has all streams, until these are placed anew
            while not all([(await each.executed())[0] for each in started]):
                await load.until(100)
        earlier = [await each.executed() for each in started]
        await load.until(600)
        load.enough = True
        await running
        shares = [(await each.executed())[1] - then for each, (_, then) in zip(started, earlier, strict=True)]
    assert set(load.outcomes) == {"good: found"}
    assert min(shares) > 0.2 * sum(shares), shares


async def test_a_killed_worker_loses_nothing_and_one_that_returns_has_its_share() -> None:
    async with workers(2) as (dies, stays), batcher("", *before([dies, stays])) as b:
        load = Load(b.channel)
        running = asyncio.ensure_future(load.run())
        await load.until(200)
        dies.process.kill()
        await load.until(200)
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(WORKER), dies.listen, dies.url.removeprefix("http://").removesuffix("/metrics")
        )
        try:
            async with grpc.aio.insecure_channel(dies.listen) as channel:
                await until_healthy(channel)
            async with asyncio.timeout(60):
                while (await dies.executed())[1] < 50:
                    await load.until(50)
            load.enough = True
            await running
        finally:
            process.terminate()
            await process.wait()
    assert load.outcomes.keys() == {"good: found"}


async def test_a_worker_that_is_told_to_stop_answers_what_it_has() -> None:
    async with workers(2) as (leaves, stays), batcher("", *before([leaves, stays])) as b:
        load = Load(b.channel)
        running = asyncio.ensure_future(load.run())
        await load.until(200)
        leaves.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            assert await leaves.process.wait() == 0
        await load.until(100)
        load.enough = True
        await running
    assert load.outcomes.keys() == {"good: found"}


HANGS = """
import sys, threading
from shoal import batching
from shoal.batching import host

host.DRAIN_SECONDS = 0.2
server = batching.Server()

@server.batched("/hang.v1.Hang/Hang", bytes, bytes)
def hang(_):
    print("hangs", flush=True)
    threading.Event().wait()

batching.run(server, sys.argv[1])
"""


async def test_a_function_that_hangs_keeps_no_worker_from_its_end() -> None:
    listen = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HANGS, listen, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with batcher("", "--worker", listen) as b:
            call = asyncio.ensure_future(b.channel.unary_unary("/hang.v1.Hang/Hang")(b"", timeout=60))
            assert process.stdout
            await process.stdout.readline()
            process.terminate()
            _, errors = await asyncio.wait_for(process.communicate(), 60)
            call.cancel()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 1
    assert b"a function still ran" in errors


async def test_large_messages_pass_where_they_are_allowed(door: str) -> None:
    server = batching.Server()

    @server.batched("/echo.v1.Echo/Echo", bytes, bytes, batching.BatchingSettings(max_batch_size=8))
    async def echo(requests: Sequence[bytes]) -> Sequence[bytes]:
        return requests

    async with (
        server.serving("127.0.0.1:0") as worker,
        batcher(door, "--worker", str(worker), "--max-message-bytes", str(2**20)) as b,
    ):
        call: Any = b.channel.unary_unary("/echo.v1.Echo/Echo")
        messages = [bytes([n]) * 2**20 for n in range(16)]
        assert await asyncio.gather(*(call(message, timeout=60) for message in messages)) == messages
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(bytes(2**20 + 1), timeout=60)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"x", timeout=60, metadata=(("x-model-name", "other"),))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_an_answer_as_long_as_the_callers_window_arrives(door: str) -> None:
    server = batching.Server()

    @server.batched("/zeros.v1.Zeros/Zeros", bytes, bytes)
    async def zeros(requests: Sequence[bytes]) -> Sequence[bytes]:
        return [bytes(int(each)) for each in requests]

    window, frame = 2**16 - 1, 5  # RFC 9113 6.9.2, and what gRPC writes before a message
    options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", window)]
    async with server.serving("127.0.0.1:0") as worker, batcher(door, "--worker", str(worker)) as b:
        for length in (*range(window - 2 * frame, window + frame), 2 * window - frame):
            async with grpc.aio.insecure_channel(b.listen, options) as channel:
                answer: bytes = await channel.unary_unary("/zeros.v1.Zeros/Zeros")(str(length).encode(), timeout=60)
            assert len(answer) == length


def test_the_worker_is_a_plain_function() -> None:
    answers = nearest([Query(vector=VECTORS[7]), Query(vector=ZEROS), Query(vector=-3 * VECTORS[8])])
    assert isinstance(answers[0], Neighbour)
    assert (answers[0].id, round(answers[0].cosine, 3), answers[0].batch_size) == (7, 1.0, 3)
    assert str(answers[1]) == "vector: expected 256 finite numbers, not all zero"
    assert isinstance(answers[2], Neighbour)
