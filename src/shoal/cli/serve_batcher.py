"""``shoal serve batcher``."""

from __future__ import annotations

from typing import Annotated

import typer

from shoal.topology import Endpoint


def serve_batcher(
    name: Annotated[str, typer.Option(help="Names this process to workers and in logs.")],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where calls come in.")],
    balancer: Annotated[str, typer.Option(metavar="HOST:PORT", help="The load balancer before the workers.")],
    admin: Annotated[str, typer.Option(metavar="HOST:PORT", help="Envoy's admin address; keep it on loopback.")],
    metrics: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where /metrics is served.")],
) -> None:
    """Runs a batcher until SIGTERM, then drains."""
    from shoal.batcher.process import BatcherOptions, serve  # noqa: PLC0415 - the extra may be missing
    from shoal.signals import run_until_signal  # noqa: PLC0415

    options = BatcherOptions(name, *map(Endpoint.parse, (listen, balancer, admin, metrics)))
    raise typer.Exit(run_until_signal(lambda stop: serve(options, stop)))
