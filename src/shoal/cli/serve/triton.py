"""``shoal serve triton``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.places import endpoint_at
from shoal.runtime.endpoint import Endpoint
from shoal.triton import installation, launch


def serve_triton(
    *,
    repository: Annotated[Path, typer.Option(help="The model repository: a model store.")],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the v2 gRPC protocol is served.")],
    metrics: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where /metrics is served. Default: nowhere.")
    ] = None,
    control: Annotated[launch.ControlMode, typer.Option(help="Who loads models.")] = "explicit",
    model: Annotated[list[str] | None, typer.Option(help="A model to load at the start; any number of times.")] = None,
    client_shared_memory: Annotated[bool, typer.Option(help="Whether clients may register memory.")] = True,
    auto_complete: Annotated[
        bool, typer.Option("--auto-complete", help="Let Triton fill in what a config.pbtxt leaves out.")
    ] = False,
    server: Annotated[
        str | None, typer.Option(help="The tritonserver. Default: one on the PATH, else the fetched one.")
    ] = None,
    packages: Annotated[
        Path | None, typer.Option(help="Where a fetched server's Python finds packages. Default: ours.")
    ] = None,
    gpus: Annotated[
        str | None, typer.Option(metavar="NUMBER,…", help="The GPUs it may use. Default: all that we may.")
    ] = None,
) -> None:
    """Becomes a tritonserver: the one found on this machine, with the ports and folders that it needs."""
    options = launch.Options(
        repository=repository,
        listen=Endpoint.parse(listen),
        metrics=endpoint_at(metrics),
        control=control,
        models=tuple(model or ()),
        client_shared_memory=client_shared_memory,
        auto_complete=auto_complete,
        server=server,
        packages=packages,
        gpus=gpus,
    )
    launch.become(installation.find(server), options)
