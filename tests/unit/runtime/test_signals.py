from __future__ import annotations

import asyncio

from shoal.runtime.signals import until_stop


async def test_it_waits_until_the_stop_and_leaves_the_work_alone() -> None:
    stop, work = asyncio.Event(), asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(until_stop(stop, work))
    await asyncio.sleep(0)
    assert not waiting.done()
    stop.set()
    await waiting
    assert not work.done()


async def test_work_that_fails_ends_the_wait_without_raising() -> None:
    work = asyncio.get_running_loop().create_future()
    work.set_exception(OSError("broken"))
    await until_stop(asyncio.Event(), asyncio.get_running_loop().create_future(), work)
    assert isinstance(work.exception(), OSError)
