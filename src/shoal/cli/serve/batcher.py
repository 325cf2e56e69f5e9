"""``shoal serve batcher``."""

from __future__ import annotations

import socket
from typing import Annotated

import typer

from shoal.batching import wire
from shoal.errors import ConfigurationError
from shoal.runtime.endpoint import Endpoint
from shoal.runtime.logs import LogLevel
from shoal.service.defaults import RECENT_REQUESTS


def serve_batcher(
    *,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where calls come in.")],
    worker: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:PORT", help="A worker, once each by IP address; or one DNS name for all."),
    ] = None,
    balancer: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="In place of workers: the load balancer before them.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A name that callers may send as x-model-name; the first is for those who send none. "
            "Default: 'default' with --worker, any with --balancer."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Names this process to workers and in logs. Default: host and port.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where /metrics and /requests/UUID are served. Default: nowhere."),
    ] = None,
    recent_requests: Annotated[
        int, typer.Option(min=0, help="Requests remembered for 'shoal explain'; 0: none.")
    ] = RECENT_REQUESTS,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(metavar="URL", help="An OpenTelemetry collector, for calls that the router traces."),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(help="The least that is logged.")] = "info",
    max_message_bytes: Annotated[
        int | None,
        typer.Option(
            min=1, max=wire.MAX_REQUEST_BYTES, help=f"Larger requests are refused. Default: {wire.REQUEST_BYTES}."
        ),
    ] = None,
) -> None:
    """Takes unary calls and gives them to workers in batches. Runs until SIGTERM, then drains."""
    from shoal.batcher.core import Orders
    from shoal.batcher.process import BatcherOptions, serve  # the extra may be missing
    from shoal.batcher.target import target_of
    from shoal.modelconfig.batching import DEFAULT_MODEL
    from shoal.runtime.signals import run_until_signal

    if (balancer is None) == (not worker):
        raise ConfigurationError("give either --worker, once for each, or --balancer")
    endpoint = Endpoint.parse(listen)
    orders = Orders(
        name or f"{socket.gethostname()}:{endpoint.port}",
        str(Endpoint.parse(balancer)) if balancer else target_of([Endpoint.parse(each) for each in worker or ()]),
        workers=not balancer,
        models=tuple(model or (() if balancer else (DEFAULT_MODEL,))),
        max_message_bytes=max_message_bytes or wire.REQUEST_BYTES,
        metrics=str(Endpoint.parse(metrics)) if metrics else "",
        recent_requests=recent_requests if metrics else 0,
        otlp_endpoint=otlp_endpoint or "",
        log_level=log_level,
    )
    options = BatcherOptions(orders, endpoint)
    raise typer.Exit(run_until_signal(lambda stop: serve(options, stop), log_level))
