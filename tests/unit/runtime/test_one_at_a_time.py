from __future__ import annotations

import asyncio
import sys

import pytest

from shoal.runtime import one_at_a_time as module
from shoal.runtime.one_at_a_time import one_at_a_time

HOLDS = """
import asyncio, sys
from shoal.runtime.one_at_a_time import one_at_a_time
async def hold():
    async with one_at_a_time(sys.argv[1]):
        print("held", flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(hold())
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.001)


async def test_the_second_comes_when_the_first_has_gone() -> None:
    order: list[str] = []
    first_in, may_go = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with one_at_a_time("test-two"):
            first_in.set()
            await may_go.wait()
            order.append("first")

    async def second() -> None:
        await first_in.wait()
        async with one_at_a_time("test-two"):
            order.append("second")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(first())
        waiting = tasks.create_task(second())
        await first_in.wait()
        async with one_at_a_time("test-another"):
            assert not waiting.done(), "another name is another lock"
        may_go.set()
    assert order == ["first", "second"]


async def test_a_killed_process_holds_nothing() -> None:
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDS, "test-killed", **pipes)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"held\n"

        async def take() -> None:
            async with one_at_a_time("test-killed"):
                pass

        waiting = asyncio.create_task(take())
        await asyncio.sleep(0)
        assert not waiting.done()
        process.kill()
        await waiting
    finally:
        await process.wait()


async def test_whoever_gives_up_leaves_it_free() -> None:
    async with one_at_a_time("test-cancelled"):

        async def wait() -> None:
            async with one_at_a_time("test-cancelled"):
                pass

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with one_at_a_time("test-cancelled"):
        pass


async def test_a_name_may_be_as_long_as_it_likes() -> None:
    async with one_at_a_time("a" * 300), one_at_a_time("a" * 301):
        pass
