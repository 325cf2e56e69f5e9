"""Beside an Envoy that somebody else starts: renders its files, keeps them current, and sees it off."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shoal.router import refused
from shoal.router.console_answers import attending
from shoal.router.drain import depart
from shoal.router.keeper import ConfigKeeper
from shoal.router.keyfile import KeyFile, WatchedSecret
from shoal.router.model_names import choose
from shoal.runtime.envoy_admin import EnvoyAdmin
from shoal.runtime.health import Health
from shoal.runtime.signals import until_stop
from shoal.service import spec

if TYPE_CHECKING:
    from pathlib import Path

    from shoal.router.drain import Departure
    from shoal.router.secret import SecretWatch
    from shoal.runtime.endpoint import Endpoint
    from shoal.service.home import Home

SERVICE = "shoal.RouterConfig"


async def open_keeper(
    *, service_file: Path | None, topology_file: Path, home: Home, watch: SecretWatch | None = None
) -> ConfigKeeper:
    """A keeper that knows which models there are.

    Args:
        service_file: None: the default service.
        topology_file: Where each part listens.
        home: Has room for Envoy's files.
        watch: Follows the Secret that the keys file is mounted from. None: the file alone is followed.

    Raises:
        ConfigurationError: an input is wrong.
        ShoalError: the models' bucket can't be listed, and never was.
    """
    service = spec.load(service_file)
    models = choose(service, home)
    keys = KeyFile(home.keys_file(service))
    if watch is not None:
        keys = WatchedSecret(keys.path, watch, home.run.absolute() / "router" / "keys.json")
    await asyncio.gather(models.look(), keys.look())
    return ConfigKeeper(service_file=service_file, topology_file=topology_file, home=home, models=models, keys=keys)


async def keep(keeper: ConfigKeeper, stop: asyncio.Event, *, listen: Endpoint | None, departure: Departure) -> None:
    """Keeps Envoy's files current until ``stop`` is set; then has Envoy drain and end.

    Args:
        keeper: Renders the files that Envoy reads.
        stop: Set it to end.
        listen: Where gRPC health is answered: SERVING once there are files, and the keeper has its ``routes``.
        departure: How long Envoy takes to leave.
    """
    health = Health(SERVICE)
    async with health.listening(listen), attending(keeper):
        keeper.render()
        keeping = asyncio.create_task(keeper.run())
        telling = asyncio.create_task(_tell(keeper, health))
        asking = asyncio.create_task(refused.tell(keeper, EnvoyAdmin(keeper.admin)))
        try:
            await until_stop(stop, keeping, asking)
            for task in (keeping, asking):
                if task.done():
                    task.result()  # it only ends by an error
            telling.cancel()
            await health.say(serving=False)
            await depart(EnvoyAdmin(keeper.admin), departure)
        finally:
            for task in (keeping, telling, asking):
                task.cancel()
            await asyncio.gather(keeping, telling, asking, return_exceptions=True)


async def _tell(keeper: ConfigKeeper, health: Health) -> None:
    """A router that knows no model answers every call with NOT_FOUND: one that knows some is not to make way for it."""
    if not keeper.routes.is_set():
        await health.say(serving=False)
        await keeper.routes.wait()
    await health.say(serving=True)
