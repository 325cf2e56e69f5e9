"""``shoal serve router-config``: the files of an Envoy that a container of its own runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.places import endpoint_at, home_at
from shoal.router.drain import Departure
from shoal.router.secret import ACCOUNT, Api, SecretWatch
from shoal.router.sidecar import keep, open_keeper
from shoal.runtime import logs
from shoal.runtime.signals import run_until_signal

_DEFAULT = Departure()


def serve_router_config(
    *,
    topology: Annotated[Path, typer.Option(help="Where each part listens (JSON).")],
    service: Annotated[Path | None, typer.Option(help="The service file; without one, the defaults.")] = None,
    home: Annotated[Path | None, typer.Option(help="Shoal's home; Envoy's files go to run/router in it.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Write the files and end: for an init container.")] = False,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where gRPC health is answered. Default: nowhere.")
    ] = None,
    keys_secret: Annotated[
        str | None,
        typer.Option(help="The Secret that the keys file is mounted from, to follow it at the Kubernetes API."),
    ] = None,
    service_account: Annotated[
        Path, typer.Option(help="For --keys-secret: where the pod's token, namespace and the API's authority are.")
    ] = ACCOUNT,
    lame_duck_seconds: Annotated[
        float, typer.Option(min=0, help="After SIGTERM calls are taken for so long, until everybody knows.")
    ] = _DEFAULT.lame_duck_seconds,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="What calls in flight get to finish after that.")
    ] = _DEFAULT.drain_seconds,
) -> None:
    """Keep Envoy's files current until SIGTERM, then have Envoy drain and end."""
    watch = SecretWatch(Api.of_pod(service_account), keys_secret) if keys_secret else None
    keeper = asyncio.run(open_keeper(service_file=service, topology_file=topology, home=home_at(home), watch=watch))
    level = keeper.service.value.observe.log_level
    if once:
        logs.configure(level)
        keeper.render()
        return
    health = endpoint_at(listen)
    departure = Departure(lame_duck_seconds, drain_seconds)
    run_until_signal(lambda stop: keep(keeper, stop, listen=health, departure=departure), level)
