"""Which models no worker serves, though workers are there and ready: calls for them would only wait.

A model in the store may be one that no worker can load. Its workers say so when they are asked; the router then refuses
its calls at once. What nobody knows is routed: workers may be starting, or be older than the question.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from shoal.spec import Service
    from shoal.topology import Endpoint

    Ask = Callable[[Endpoint], Awaitable[frozenset[str] | None]]

POLL_SECONDS = 5.0
"""How often workers are asked."""
PATIENCE_SECONDS = 30.0
"""What a model that is new in the store gets to be loaded; until then its calls wait for a worker."""


class Unserved:
    """Models of the store that ready workers of their pool don't serve, and haven't for a while."""

    def __init__(self) -> None:
        self._missing: dict[str, float] = {}
        """Since when, in seconds from any origin."""

    def update(
        self, service: Service, models: Iterable[str], served: Mapping[str, frozenset[str] | None], now: float
    ) -> None:
        """Takes in what workers said.

        Args:
            service: Says which pool a model is for.
            models: Those in the store.
            served: Pool to what its ready workers serve; None where there is none that says so.
            now: Seconds, from any origin.
        """
        missing = {}
        for model in models:
            known = served.get(service.pool_of(model) or "")
            if known is not None and model not in known:
                missing[model] = self._missing.get(model, now)
        self._missing = missing

    def names(self, now: float) -> frozenset[str]:
        """Those that are refused now."""
        return frozenset(model for model, since in self._missing.items() if now - since >= PATIENCE_SECONDS)


async def served(pools: Mapping[str, Sequence[Endpoint]], ask: Ask) -> dict[str, frozenset[str] | None]:
    """Pool to what its ready workers serve; None where none answers."""
    answers = await asyncio.gather(*(_union(hosts, ask) for hosts in pools.values()))
    return dict(zip(pools, answers, strict=True))


async def _union(hosts: Sequence[Endpoint], ask: Ask) -> frozenset[str] | None:
    answers = [answer for answer in await asyncio.gather(*map(ask, hosts)) if answer is not None]
    return frozenset().union(*answers) if answers else None
