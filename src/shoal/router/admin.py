"""What the router asks of Envoy's admin interface."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from shoal.topology import Endpoint

_ACTIVE = "http.public.downstream_rq_active"
_ASK_SECONDS = 0.05


async def drain(admin: Endpoint) -> None:
    """Sends clients away and returns once no public call is in flight.

    Every answer from now on asks its client to open another connection (GOAWAY). Parked batching streams are not
    waited for: without public calls there is nothing in them.

    Raises:
        OSError, aiohttp.ClientError: the admin interface is away.
    """
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(f"http://{admin}", timeout=timeout) as session:
        for command in ("/healthcheck/fail", "/drain_listeners?graceful&skip_exit"):
            async with session.post(command) as answer:
                answer.raise_for_status()
        while await _active_calls(session):  # noqa: ASYNC110 - Envoy has nothing to wait on
            await asyncio.sleep(_ASK_SECONDS)


async def _active_calls(session: aiohttp.ClientSession) -> int:
    async with session.get("/stats", params={"filter": f"^{_ACTIVE}$"}) as answer:
        answer.raise_for_status()
        return int((await answer.text()).rpartition(":")[2] or 0)
