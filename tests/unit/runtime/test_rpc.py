from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from shoal.runtime import rpc

if TYPE_CHECKING:
    from collections.abc import Generator

# A server that is still referenced when its loop closes, as a failed test's traceback or a global does, is never
# stopped: what it leaves in the process's completion queue keeps whoever closes last.
LEAK = """
import asyncio, faulthandler, gc, grpc.aio
faulthandler.dump_traceback_later(100, exit=True)
kept = []

async def leak():
    server = grpc.aio.server()
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    kept.append(server)

async def close():
    CLOSE

asyncio.run(close())
asyncio.run(leak())
kept.clear()
gc.collect()
asyncio.run(close())
gc.collect()
print("closed")
"""
SDK = """
    from shoal.client import AsyncClient
    from shoal.errors import Unavailable
    async with AsyncClient("127.0.0.1:1", api_key="key") as client:
        try:
            await client.connect()
        except Unavailable:
            pass
"""
TRITON = """
    from shoal.triton.client import TritonClient
    await TritonClient("127.0.0.1:1").close()
"""


@pytest.mark.parametrize("close", [SDK, TRITON], ids=["SDK", "Triton client"])
def test_closing_last_does_not_wait_for_a_server_that_was_never_stopped(close: str) -> None:
    code = LEAK.replace("CLOSE", close.strip())
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout == "closed\n", done.stderr


class EndsAsItIsCancelled:
    """A call as grpc's are: a task of its own, which a cancellation reaches just as the status comes."""

    def __init__(self, status: grpc.StatusCode) -> None:
        self.begun = asyncio.Event()
        self._status = status

    def __await__(self) -> Generator[Any, None, str]:
        yield from asyncio.ensure_future(self._wait())
        if self._status is grpc.StatusCode.OK:
            return "answer"
        raise grpc.aio.AioRpcError(self._status, grpc.aio.Metadata(), grpc.aio.Metadata())

    async def _wait(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return


@pytest.mark.parametrize("status", [grpc.StatusCode.OK, grpc.StatusCode.INTERNAL])
async def test_a_cancellation_is_heard_though_the_call_ends_just_then(status: grpc.StatusCode) -> None:
    call = EndsAsItIsCancelled(status)
    task = asyncio.ensure_future(rpc.answered(call))
    await call.begun.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def test_after_a_cancellation_calls_are_answered() -> None:
    async def cleans_up() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            return await rpc.answered(asyncio.sleep(0, "cleaned"))  # noqa: B012 - to see it

    task = asyncio.ensure_future(cleans_up())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "cleaned"
