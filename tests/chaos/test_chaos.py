"""Each part is killed, rolled or frozen under steady load through the SDK; every request ends in its right answer."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import psutil
import pytest

from shoal.router.clusters import pool_cluster
from support.executions import executions
from support.steady_load import Counts, SteadyLoad, steady_load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shoal.local.state import PartState
    from support.stack import Stack

RATE = 40.0
"""Requests a second: few enough that two cores can start a part at the same time."""
DEADLINE_SECONDS = 60.0
SOME = 40
"""Requests before the blow, and after its end."""

WORKERS = ("worker-default-1", "worker-default-2")
ONLY = {"batcher": "batcher-shared-1", "router": "router", "store": "store"}


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


async def resent(stack: Stack) -> int:
    """How many requests the batcher, as it runs now, took back from streams that broke; its log leaves many out."""
    return int(await stack.metric(ONLY["batcher"], "shoal_batcher_resent_total"))


def at_work(part: PartState) -> psutil.Process:
    """The process that does a part's work: its Envoy, if it has one."""
    process = psutil.Process(part.pid)
    return next((child for child in process.children() if child.name() == "envoy"), process)


async def busy(stack: Stack) -> PartState:
    """A worker, as soon as it has requests in its hands."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while True:
            for name in WORKERS:
                if await stack.metric(name, "shoal_worker_batches_in_flight"):
                    return stack.part(name)


async def until_healthy(stack: Stack, count: int) -> None:
    """Waits until the load balancer gives streams to ``count`` workers."""
    await stack.until_metric(
        "router", "envoy_cluster_membership_healthy", count, envoy_cluster_name=pool_cluster("default")
    )


@pytest.mark.parametrize("role", ["worker", *ONLY])
async def test_killed(stack: Stack, tally: dict[str, Counts], role: str) -> None:
    async with load_around(stack, tally, f"{role}: SIGKILL"):
        before = await busy(stack) if role == "worker" else stack.part(ONLY[role])
        at_work(before).kill()
        await stack.restarted(before)


@pytest.mark.parametrize("role", ["workers", *ONLY])
async def test_rolled(stack: Stack, tally: dict[str, Counts], role: str) -> None:
    scenario = f"{role}: SIGTERM"
    async with load_around(stack, tally, scenario):
        for part in WORKERS if role == "workers" else (ONLY[role],):
            before = stack.part(part)
            assert before.pid
            os.kill(before.pid, signal.SIGTERM)
            await stack.restarted(before)
            await until_healthy(stack, len(WORKERS))
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
