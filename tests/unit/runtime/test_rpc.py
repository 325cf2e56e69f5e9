from __future__ import annotations

import subprocess
import sys

import pytest

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
