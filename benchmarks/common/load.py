"""One window of load, and the CPU time that everything took meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from benchmarks.common import cpu
from shoal.client.load.generator import run_load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoal.client.load.generator import LoadClient, LoadRequest, LoadSettings
    from shoal.client.load.tally import LoadResult


async def run_window(
    caller: LoadClient, requests: Sequence[LoadRequest], settings: LoadSettings, snapshot: Callable[[], cpu.Snapshot]
) -> tuple[LoadResult, cpu.Spent]:
    """Runs the load; ``snapshot`` is taken behind the warm-up and at the window's end."""
    now = asyncio.get_running_loop().time
    begin = now() + settings.warm_up_seconds
    load = asyncio.create_task(run_load(caller, requests, settings))
    await asyncio.sleep(begin - now())
    before = snapshot()
    await asyncio.sleep(begin + settings.duration_seconds - now())
    after = snapshot()
    return await load, cpu.spent(before, after)
