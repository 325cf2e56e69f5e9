"""The batcher's process: inside Envoy where a shared libpython lets it, else behind grpcio; drains on SIGTERM."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shoal.batcher.envoy_door import DRAIN_PATH, IN_FLIGHT_PATH, TOKEN_HEADER, TOKEN_VARIABLE
from shoal.batching import wire
from shoal.runtime.envoy import EnvoyProcess, check_free
from shoal.runtime.envoy_http2 import TRUSTED_HEADERS, TRUSTED_HEADERS_BYTES, runtime, trusted_http2, windows
from shoal.runtime.signals import until_stop

if TYPE_CHECKING:
    from typing import Any

    import aiohttp

    from shoal.batcher.core import Orders
    from shoal.runtime.endpoint import Endpoint

log = logging.getLogger(__name__)

DRAIN_SECONDS = 30.0
"""Calls in flight get this long to finish after SIGTERM."""
_POLL_SECONDS = 0.05
_GRPC_PATH = r"/[!-$&-.0-~]+/[!-$&-.0-~]+"
"""Two names of printable ASCII, nothing escaped."""
_OVERHEAD_BYTES = 2**16
"""A message that is a little too large gets our own answer; one that is far too large is grpcio's to refuse."""


@dataclass(frozen=True, slots=True)
class BatcherOptions:
    """What a batcher is told at its start."""

    orders: Orders
    listen: Endpoint


async def serve(options: BatcherOptions, stop: asyncio.Event) -> int:
    """Serves until ``stop`` is set, then drains. Returns the exit code."""
    os.environ |= options.orders.write()
    if has_shared_libpython():
        return await _serve_in_envoy(options, stop)
    log.warning(
        "no shared libpython was found, so calls are served by grpcio: each costs about twice the CPU; "
        "on Debian and Ubuntu the package libpython3-dev brings it"
    )
    return await _serve_in_grpcio(options, stop)


def has_shared_libpython() -> bool:
    """Whether Envoy can load Python. ``SHOAL_BATCHER_FRONT=grpcio`` says no."""
    import find_libpython  # comes with pyvoy

    if os.environ.get("SHOAL_BATCHER_FRONT") == "grpcio":
        return False
    paths = map(Path, find_libpython.candidate_paths())
    return any(path.name.startswith("libpython") and path.exists() for path in paths)


async def _serve_in_envoy(options: BatcherOptions, stop: asyncio.Event) -> int:
    from pyvoy._server import get_envoy_environ  # no public name for what a foreign Envoy needs

    check_free("batcher", (options.listen,))
    token = secrets.token_urlsafe(32)
    environment = {**os.environ, **get_envoy_environ(), TOKEN_VARIABLE: token}
    # main would warn of a missing limit on connections at each start; the router is the only one that connects.
    arguments = ["--config-yaml", json.dumps(envoy_config(options)), "--log-level", "warning"]
    arguments += ["--component-log-level", "main:error"]
    async with EnvoyProcess(arguments, concurrency=1, environment=environment) as envoy:
        log.info("batcher %s listens on %s, inside Envoy", options.orders.name, options.listen)
        await until_stop(stop, envoy.ended)
        if envoy.ended.done():
            return envoy.exit_code
        draining = asyncio.create_task(_drain(options.listen, {TOKEN_HEADER: token}))
        await asyncio.wait({draining, envoy.ended}, return_when=asyncio.FIRST_COMPLETED)
        if envoy.ended.done():
            draining.cancel()
            log.error("Envoy ended with code %d while calls were still in flight; they are lost", envoy.exit_code)
            return envoy.exit_code or 1
        await draining
    return 0


def envoy_config(options: BatcherOptions) -> dict[str, Any]:
    """Envoy's configuration: one listener, whose only filter is the batcher."""
    from pyvoy import PyvoyServer  # needed in this one place

    server = PyvoyServer(
        "shoal.batcher.envoy_door:app",
        address=options.listen.host,
        port=options.listen.port,
        worker_threads=1,
        lifespan=True,
        loop="uvloop",
    )
    config: dict[str, Any] = server.get_envoy_config()
    del config["admin"]  # nothing of ours asks there
    config["layered_runtime"] = runtime()
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager |= {
        "http2_protocol_options": trusted_http2(**windows()),
        "stream_idle_timeout": "0s",  # a stream of calls may be silent: the router says for how long
        "common_http_protocol_options": {"max_headers_count": TRUSTED_HEADERS},
    }
    _keep_odd_paths_out(manager)
    return config


def _keep_odd_paths_out(manager: dict[str, Any]) -> None:
    """Answers UNIMPLEMENTED where a path isn't one of gRPC's: pyvoy never answers one that is no UTF-8.

    Args:
        manager: The configuration of the listener's HttpConnectionManager; its only filter is the batcher.
    """
    (application,) = manager["http_filters"]
    application["typed_config"]["terminal_filter"] = False
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    manager["http_filters"].append({"name": "envoy.filters.http.router", "typed_config": router})
    reply = {"status": 404, "body": {"inline_string": "no such method: expected /package.Service/Method"}}
    off = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    (host,) = manager["route_config"]["virtual_hosts"]
    host["routes"] = [
        {"match": {"safe_regex": {"regex": _GRPC_PATH}}, "direct_response": reply},  # never reached: the filter answers
        {"match": {"prefix": "/"}, "direct_response": reply, "typed_per_filter_config": {application["name"]: off}},
    ]


async def _drain(listen: Endpoint, headers: dict[str, str]) -> None:
    """Returns when no call is in flight, or the time is over."""
    import aiohttp  # a start has no use for it

    try:
        async with (
            asyncio.timeout(DRAIN_SECONDS),
            aiohttp.ClientSession(f"http://{listen}", headers=headers) as session,
        ):
            in_flight = await _ask(session, DRAIN_PATH)
            while in_flight:
                await asyncio.sleep(_POLL_SECONDS)
                in_flight = await _ask(session, IN_FLIGHT_PATH)
    except TimeoutError:
        log.warning("calls were still in flight after %.0f s of draining", DRAIN_SECONDS)
    except (aiohttp.ClientError, OSError) as error:
        log.warning("not drained: %r", error)


async def _ask(session: aiohttp.ClientSession, path: str) -> int:
    async with session.get(path) as response:
        response.raise_for_status()
        return int(await response.read())


async def _serve_in_grpcio(options: BatcherOptions, stop: asyncio.Event) -> int:
    import grpc  # Envoy's parent has no use for these

    from shoal.batcher.core import make_batcher
    from shoal.batcher.grpcio_door import GenericHandler
    from shoal.runtime import rpc

    batcher = make_batcher()
    limit = wire.STREAM_CHUNK_BYTES + options.orders.max_message_bytes + _OVERHEAD_BYTES
    settings = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_metadata_size", TRUSTED_HEADERS_BYTES),
        *rpc.BEHIND_THE_ROUTER,
    ]
    server = grpc.aio.server(options=settings)
    server.add_generic_rpc_handlers((GenericHandler(batcher),))
    rpc.listen(server, options.listen)
    await server.start()
    log.info("batcher %s listens on %s, behind grpcio", options.orders.name, options.listen)
    await stop.wait()
    batcher.drain()
    await server.stop(grace=DRAIN_SECONDS)
    await batcher.close()
    return 0
