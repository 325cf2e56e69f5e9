"""What workers report that they serve, and what follows for the router.

A model in the store may be one that no worker can load: calls for it would only wait. The router asks the workers, and
refuses a model's calls at once if ready workers don't serve it (``Unserved``). A model that they serve is routed to,
even if it isn't listed (``ServedModels``). If no worker answers, calls are routed: workers may be starting, or be
older than the question.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shoal.router.model_names import fit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from shoal.runtime.endpoint import Endpoint
    from shoal.service.spec import Service

    Ask = Callable[[Endpoint], Awaitable[frozenset[str] | None]]

POLL_SECONDS = 5.0
"""How often workers are asked."""
PATIENCE_SECONDS = 30.0
"""How long a model that is new in the store may take to load. Until then its calls wait for a worker."""


class Unserved:
    """Models of the store that ready workers of their pool don't serve, and haven't for a while."""

    def __init__(self) -> None:
        self._missing: dict[str, float] = {}
        """Model to the time since when it is missing, in seconds from any origin."""

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


class ServedModels:
    """Models that ready workers serve are routed to, even where the listing or the patterns lack them.

    Either may be mistyped, and workers of before the mistake stay: what they answered they go on answering. But what
    the listing had and has no more was taken out.
    """

    def __init__(self) -> None:
        self._served: dict[str, frozenset[str]] = {}
        self._listed: frozenset[str] = frozenset()
        self._gone: frozenset[str] = frozenset()

    def update(self, answers: Mapping[str, frozenset[str] | None]) -> bool:
        """Takes in what workers said, as ``Unserved`` does; whether that is news. Where nobody answers, it stays."""
        before = dict(self._served)
        self._served |= {pool: frozenset(fit(names)) for pool, names in answers.items() if names is not None}
        return self._served != before

    def list(self, names: Iterable[str]) -> None:
        """What is listed now."""
        listed = frozenset(names)
        self._gone = (self._gone | self._listed) - listed
        self._listed = listed

    def models(self, service: Service) -> set[str]:
        """The models that are served, without those that ``service`` gives to another pool."""
        return {name for pool, names in self._of(service) for name in names if service.pool_of(name) in {None, pool}}

    def adopt(self, service: Service) -> Service:
        """``service`` with each of them that fits no pattern named in the pool whose workers serve it."""
        pools = dict(service.pools)
        for pool, names in self._of(service):
            more = sorted(name for name in names if service.pool_of(name) is None)
            pools[pool] = pools[pool].model_copy(update={"models": [*pools[pool].models, *more]})
        return service.model_copy(update={"pools": pools})

    def _of(self, service: Service) -> Iterable[tuple[str, frozenset[str]]]:
        return [(pool, names - self._gone) for pool, names in self._served.items() if pool in service.pools]


async def served(pools: Mapping[str, Sequence[Endpoint]], ask: Ask) -> dict[str, frozenset[str] | None]:
    """Pool to what its ready workers serve; None where none answers."""
    answers = await asyncio.gather(*(_union(hosts, ask) for hosts in pools.values()))
    return dict(zip(pools, answers, strict=True))


async def _union(hosts: Sequence[Endpoint], ask: Ask) -> frozenset[str] | None:
    answers = [answer for answer in await asyncio.gather(*map(ask, hosts)) if answer is not None]
    return frozenset().union(*answers) if answers else None
