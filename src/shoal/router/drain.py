"""A router's orderly end: no call in flight is cut, and no batch that other routers' calls are in.

A load balancer carries batches of calls that came through any router, so it serves until the public listener has
nothing left, then asks the batchers to open their streams elsewhere and gives those in use time to end.

Nothing asks a stream of calls to leave: Envoy says GOAWAY as it answers, and a stream's answer has long begun. Clients
replace theirs now and then; those that are still open when the time is over end, and their calls are sent elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from shoal.runtime.envoy_admin import EnvoyAdmin

_log = logging.getLogger(__name__)

_ACTIVE = "http.public.downstream_rq_active"
_ASK_SECONDS = 0.05
HAND_OVER_SECONDS = 2.0
"""A batching stream that is in use is replaced by its batcher after 0.7 to 1.3 s."""


@dataclass(frozen=True, slots=True)
class Departure:
    """How long an Envoy that is behind a Kubernetes service takes to leave."""

    lame_duck_seconds: float = 5.0
    """Calls are taken as before, until every node and load balancer knows that this router is no longer ready."""
    drain_seconds: float = 30.0
    """What calls in flight get to finish after that."""


async def drain(admin: EnvoyAdmin, limit_seconds: float) -> None:
    """Returns once no public call is in flight, or the time is over. Batching streams go on."""
    _log.info("draining")
    try:
        async with asyncio.timeout(limit_seconds):
            await admin.close_inbound()
            while await admin.statistic(_ACTIVE):  # noqa: ASYNC110 - Envoy has nothing to wait on
                await asyncio.sleep(_ASK_SECONDS)
    except TimeoutError:
        _log.warning("calls were still in flight after %.0f s of draining", limit_seconds)
    except (aiohttp.ClientError, OSError) as error:
        _log.warning("not drained: %r", error)


async def depart(admin: EnvoyAdmin, departure: Departure) -> None:
    """Has an Envoy that somebody else started leave its service, drain and end."""
    try:
        await admin.fail_health()
    except (aiohttp.ClientError, OSError) as error:
        _log.warning("there is no Envoy to drain: %r", error)
        return
    await asyncio.sleep(departure.lame_duck_seconds)
    await drain(admin, departure.drain_seconds)
    with suppress(aiohttp.ClientError, OSError):
        await admin.discourage()
        await asyncio.sleep(HAND_OVER_SECONDS)
        await admin.quit()
