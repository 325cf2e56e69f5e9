"""Envoy's admin address: what it is asked, and how it is told to leave.

https://www.envoyproxy.io/docs/envoy/latest/operations/admin
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from shoal.topology import Endpoint

_ANSWER_SECONDS = 5.0


class EnvoyAdmin:
    """Each method raises OSError or aiohttp.ClientError where the admin address is away or hangs."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._url = f"http://{endpoint}"

    async def fail_health(self) -> None:
        """Has ``/ready`` answer 503 and each answer ask for another connection (GOAWAY); calls are taken as before.

        A listener whose ``drain_type`` is MODIFY_ONLY asks for nothing.
        """
        await self._post("/healthcheck/fail")

    async def close_inbound(self) -> None:
        """On inbound listeners: refuses connections, and asks with each answer from now on for another (GOAWAY)."""
        await self._post("/drain_listeners?inboundonly&graceful&skip_exit", "/drain_listeners?inboundonly")

    async def discourage(self) -> None:
        """On every listener: asks with each answer from now on for another connection (GOAWAY)."""
        await self._post("/drain_listeners?graceful&skip_exit")

    async def quit(self) -> None:
        """Ends Envoy."""
        await self._post("/quitquitquit")

    async def statistic(self, name: str) -> int:
        """The present value of a counter or gauge; 0 if there is none of this name."""
        async with self._session() as session, session.get("/stats", params={"filter": f"^{name}$"}) as answer:
            answer.raise_for_status()
            return int((await answer.text()).rpartition(":")[2] or 0)

    async def _post(self, *paths: str) -> None:
        async with self._session() as session:
            for path in paths:
                async with session.post(path) as answer:
                    answer.raise_for_status()

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self._url, timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS))
