"""Each part is killed, rolled or frozen under steady load through the SDK; every request ends in its right answer."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from support.blows import DEADLINE_SECONDS, ONLY, WORKERS, at_work, busy, kill, resent, roll, until_healthy
from support.executions import executions
from support.steady_load import Counts, SteadyLoad, steady_load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.stack import Stack

RATE = 40.0
"""Requests a second: few enough that two cores can start a part at the same time."""
SOME = 40
"""Requests before the blow, and after its end."""


@asynccontextmanager
async def load_around(stack: Stack, tally: dict[str, Counts], scenario: str) -> AsyncIterator[SteadyLoad]:
    """Load around a blow; in the end every request must have its answer, and every answer its execution."""
    resent_before = await resent(stack)
    async with steady_load(stack, "tiny", rate=RATE, deadline_seconds=DEADLINE_SECONDS) as load:
        await load.more(SOME)
        yield load
        await load.more(SOME)
    executed = executions(stack.home)
    resent_after = await resent(stack)  # less than before: another process, which counts from its start
    tally[scenario] = Counts.of(load.requests, executed, resent_after - resent_before * (resent_after >= resent_before))
    assert not [request.trouble for request in load.requests if request.outcome == "lost"]
    assert all(executed[request.image_uuid] for request in load.requests if request.outcome == "answered")


@pytest.mark.parametrize("role", ["worker", *ONLY])
async def test_killed(stack: Stack, tally: dict[str, Counts], role: str) -> None:
    async with load_around(stack, tally, f"{role}: SIGKILL"):
        await kill(stack, role)


@pytest.mark.parametrize("role", ["workers", *ONLY])
async def test_rolled(stack: Stack, tally: dict[str, Counts], role: str) -> None:
    scenario = f"{role}: SIGTERM"
    async with load_around(stack, tally, scenario):
        await roll(stack, role)
    assert not tally[scenario].expired
    assert not tally[scenario].executed_twice


async def test_a_worker_that_hangs(stack: Stack, tally: dict[str, Counts]) -> None:
    scenario = "worker: SIGSTOP"
    async with load_around(stack, tally, scenario) as load:
        worker = at_work(await busy(stack))
        worker.suspend()
        try:
            await until_healthy(stack, len(WORKERS) - 1)
            await load.more(SOME)
        finally:
            worker.resume()
        await until_healthy(stack, len(WORKERS))
    assert not tally[scenario].expired
