"""Blows to the parts of a whole service, and the signs of their end."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import psutil

from shoal.router.clusters import pool_cluster

if TYPE_CHECKING:
    from shoal.local.state import PartState
    from support.stack import Stack

DEADLINE_SECONDS = 60.0
WORKERS = ("worker-default-1", "worker-default-2")
ONLY = {"batcher": "batcher-shared-1", "router": "router", "store": "store"}


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


async def kill(stack: Stack, role: str) -> None:
    """Kills a part, a busy one of the workers, and waits for the next in its place."""
    before = await busy(stack) if role == "worker" else stack.part(ONLY[role])
    at_work(before).kill()
    await stack.restarted(before)


async def roll(stack: Stack, role: str) -> None:
    """Tells a part to stop, or the workers in turn, and waits for the next in its place."""
    for part in WORKERS if role == "workers" else (ONLY[role],):
        before = stack.part(part)
        assert before.pid
        os.kill(before.pid, signal.SIGTERM)
        await stack.restarted(before)
        await until_healthy(stack, len(WORKERS))
