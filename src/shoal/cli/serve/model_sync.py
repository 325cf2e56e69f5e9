"""``shoal serve model-sync``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.places import endpoint_at, home_at
from shoal.errors import ConfigurationError


def serve_model_sync(
    *,
    service: Annotated[Path, typer.Option(help="The service file; its model_store says from where to where.")],
    pool: Annotated[str | None, typer.Option(help="Only the models of this pool. Default: all.")] = None,
    listen: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where gRPC health is answered.")] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where /metrics and POST /notify are served.")
    ] = None,
    triton: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="A Triton in explicit mode, told to load and unload.")
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove models that are no longer published, or no longer the pool's.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="Synchronise once and end: for an init container.")] = False,
    home: Annotated[Path | None, typer.Option(help="Shoal's home. Default: $SHOAL_HOME or .shoal.")] = None,
) -> None:
    """Keep a model repository in line with published models until SIGTERM."""
    from shoal.modelstore.publishing.sync_process import ModelSync, SyncOptions
    from shoal.runtime import logs
    from shoal.runtime.signals import run_until_signal
    from shoal.service import spec  # the extra may be missing

    read = spec.load(service)
    if pool is not None and pool not in read.pools:
        raise ConfigurationError(f"--pool {pool}: the service file has {', '.join(read.pools)}")
    options = SyncOptions(
        service=read,
        repository=home_at(home).model_store(read),
        pool=pool,
        listen=endpoint_at(listen),
        metrics=endpoint_at(metrics),
        triton=endpoint_at(triton),
        remove=remove,
    )
    if once:
        logs.configure(read.observe.log_level)
        raise typer.Exit(asyncio.run(ModelSync(options).once()))
    raise typer.Exit(run_until_signal(lambda stop: ModelSync(options).run(stop), read.observe.log_level))
