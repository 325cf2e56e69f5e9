"""Runs Envoy: starts it on rendered files, keeps these current, and drains it at the end."""

from __future__ import annotations

import asyncio
import logging
import resource
from typing import TYPE_CHECKING

from shoal.router import refused, uploads
from shoal.router.config import BOOTSTRAP, connections
from shoal.router.console_answers import attending
from shoal.router.drain import drain
from shoal.runtime.envoy import EnvoyProcess, check_free
from shoal.runtime.envoy_admin import EnvoyAdmin
from shoal.runtime.signals import until_stop

if TYPE_CHECKING:
    from shoal.router.keeper import ConfigKeeper

DRAIN_SECONDS = 10.0
"""What calls in flight get to finish."""

# Never Envoy's own debug: it shows headers, and so keys.
_ENVOY_LOG_LEVEL = {"debug": "info", "info": "warning", "warning": "warning", "error": "error"}


_OTHER_FILES = 500
"""Envoy's own, and its connections to batchers and workers."""

_log = logging.getLogger(__name__)


async def serve(keeper: ConfigKeeper, stop: asyncio.Event, *, concurrency: int = 1) -> int:
    """Runs Envoy until it ends by itself or ``stop`` is set; then it drains, no longer than ``DRAIN_SECONDS``.

    Args:
        keeper: Renders the files that Envoy reads.
        stop: Set it to end.
        concurrency: Envoy's threads.

    Returns:
        0 after a drain, else Envoy's own exit code, or 128 + the signal's number where one killed it.

    Raises:
        ConfigurationError: a port is taken, or Envoy refuses the configuration.
    """
    topology = keeper.topology.value
    ours = (topology.public, topology.balancer, topology.metrics, topology.uploads)
    check_free("router", [endpoint for endpoint in ours if endpoint])
    keeper.render()
    upload_connections = 2 * uploads.MAX_CONNECTIONS if topology.uploads else 0
    _check_files(connections(keeper.service.value.router) + upload_connections + _OTHER_FILES)
    async with attending(keeper), EnvoyProcess(_arguments(keeper), concurrency=concurrency) as envoy:
        admin = EnvoyAdmin(keeper.admin)
        tasks = [asyncio.create_task(work) for work in (keeper.run(), refused.tell(keeper, admin))]
        try:
            await until_stop(stop, envoy.ended, *tasks)
            if envoy.ended.done():
                return envoy.exit_code
            for task in tasks:
                if task.done():
                    task.result()  # it only ends by an error
            await drain(admin, DRAIN_SECONDS)
            return 0
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _check_files(needed: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < needed:
        _log.warning(
            "the system lets a process open %d files, and router.max_connections may take %d: raise the limit "
            "(ulimit -Hn), or lower the setting",
            most,
            needed,
        )


def _arguments(keeper: ConfigKeeper) -> list[str]:
    return [
        *("--config-path", str(keeper.folder / BOOTSTRAP)),
        *("--drain-time-s", str(int(DRAIN_SECONDS)), "--drain-strategy", "immediate"),
        # misc would say at each new key that the API key filter's fields may change with Envoy's version; config would
        # quote what it can't take, keys and all.
        *("--log-level", _ENVOY_LOG_LEVEL[keeper.service.value.observe.log_level]),
        *("--component-log-level", "misc:error,config:error"),
    ]
