"""``shoal serve router``: Envoy on the configuration that a service file gives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.places import home_at
from shoal.router.keeper import ConfigKeeper
from shoal.router.process import serve
from shoal.runtime.signals import run_until_signal


def serve_router(
    topology: Annotated[Path, typer.Option(help="Where each part listens (JSON).")],
    service: Annotated[Path | None, typer.Option(help="The service file; without one, the defaults.")] = None,
    home: Annotated[Path | None, typer.Option(help="Shoal's home; by default $SHOAL_HOME or .shoal.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Envoy's threads; each may keep one core busy.")] = 1,
) -> None:
    """Check keys, limit rates, route calls to batchers and batching streams to workers."""
    keeper = ConfigKeeper(service_file=service, topology_file=topology, home=home_at(home))
    level = keeper.service.value.observe.log_level
    raise typer.Exit(run_until_signal(lambda stop: serve(keeper, stop, concurrency=concurrency), level))
