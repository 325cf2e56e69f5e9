"""Runs Envoy: starts it on rendered files, keeps these current, and drains it at the end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import aiohttp

from shoal.envoy import EnvoyProcess, check_free
from shoal.router.config import BOOTSTRAP

if TYPE_CHECKING:
    from shoal.router.keeper import Keeper

_log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
"""What calls in flight get to finish."""

_ACTIVE = "http.public.downstream_rq_active"
_ASK_SECONDS = 0.05
# Never Envoy's own debug: it shows headers, and so keys.
_ENVOY_LOG_LEVEL = {"debug": "info", "info": "warning", "warning": "warning", "error": "error"}


async def serve(keeper: Keeper, stop: asyncio.Event, *, concurrency: int = 1) -> int:
    """Runs Envoy until it ends by itself or ``stop`` is set; then it drains, no longer than ``DRAIN_SECONDS``.

    Args:
        keeper: Renders the files that Envoy reads.
        stop: Set it to end.
        concurrency: Envoy's threads.

    Returns:
        0 after a drain, else Envoy's own exit code, or 128 + the signal's number where one killed it.

    Raises:
        ConfigurationError: a port is taken.
    """
    topology = keeper.topology.value
    check_free("router", (topology.public, topology.balancer, topology.admin))
    keeper.render()
    async with EnvoyProcess(_arguments(keeper), topology.admin, concurrency=concurrency) as envoy:
        keeping = asyncio.create_task(keeper.run())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({envoy.ended, keeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if envoy.ended.done():
                return envoy.exit_code
            if keeping.done():
                keeping.result()  # it only ends by an error
            await _drain(envoy)
            return 0
        finally:
            keeping.cancel()
            stopping.cancel()
            await asyncio.gather(keeping, stopping, return_exceptions=True)


def _arguments(keeper: Keeper) -> list[str]:
    return [
        *("--config-path", str(keeper.folder / BOOTSTRAP)),
        *("--drain-time-s", str(int(DRAIN_SECONDS)), "--drain-strategy", "immediate"),
        # misc would say at each new key that the API key filter's fields may change with Envoy's version; config would
        # quote what it can't take, keys and all.
        *("--log-level", _ENVOY_LOG_LEVEL[keeper.service.value.observe.log_level]),
        *("--component-log-level", "misc:error,config:error"),
    ]


async def _drain(envoy: EnvoyProcess) -> None:
    """Returns once no public call is in flight. Parked batching streams hold nothing without public calls."""
    _log.info("draining")
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            await envoy.leave()
            while await envoy.statistic(_ACTIVE):  # noqa: ASYNC110 - Envoy has nothing to wait on
                await asyncio.sleep(_ASK_SECONDS)
    except TimeoutError:
        _log.warning("calls were still in flight after %.0f s of draining", DRAIN_SECONDS)
    except (aiohttp.ClientError, OSError) as error:
        _log.warning("not drained: %r", error)
