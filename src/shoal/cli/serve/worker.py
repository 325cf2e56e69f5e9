"""``shoal serve worker``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.places import endpoint_at, home_at
from shoal.cli.serve.options import VerifyIdentity
from shoal.errors import ConfigurationError
from shoal.runtime.endpoint import Endpoint


def serve_worker(
    pool: Annotated[str, typer.Option(help="The pool of the service file that this worker is one of.")],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where batches come in.")],
    metrics: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where /metrics and /requests/UUID are served.")],
    service: Annotated[Path | None, typer.Option(help="The service file. Default: the default service.")] = None,
    home: Annotated[Path | None, typer.Option(help="Shoal's home. Default: $SHOAL_HOME or .shoal.")] = None,
    store_endpoint: Annotated[str | None, typer.Option(metavar="URL", help="Where a managed store listens.")] = None,
    upload_endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Where callers bring pictures to it. Default: the same.")
    ] = None,
    *,
    triton: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="The Triton started for this worker.")] = None,
    peers: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="A name for all workers of the pool, who say what has to be served."),
    ] = None,
    cores: Annotated[
        int | None,
        typer.Option(min=1, help="How many it shall keep busy. Default: all that it may use."),
    ] = None,
    verify_identity: VerifyIdentity = False,
) -> None:
    """Runs a worker until SIGTERM, then drains."""
    from shoal.explain.endpoint import Beside, serve
    from shoal.explain.recent import Recent
    from shoal.observe.metrics import WORKER
    from shoal.runtime.signals import run_until_signal
    from shoal.service import spec, worker_report  # the extra may be missing
    from shoal.worker.options import WorkerOptions
    from shoal.worker.server import Worker
    from shoal.worker.stages import Stages, explain

    read = spec.load(service)
    if pool not in read.pools:
        raise ConfigurationError(f"--pool {pool}: the service file has {', '.join(read.pools)}")
    options = WorkerOptions(
        read,
        home_at(home),
        pool,
        Endpoint.parse(listen),
        store_endpoint=store_endpoint,
        upload_endpoint=upload_endpoint,
        own_triton=triton,
        peers=endpoint_at(peers),
        cores=cores,
        verify_identity=verify_identity,
    )
    recent: Recent[Stages] = Recent(read.observe.recent_requests)
    worker_report.remove(options.home, options.listen)
    models = partial(worker_report.WorkerReport.starting, options.home, options.listen)
    serve(Endpoint.parse(metrics), WORKER, partial(explain, recent), Beside(models=models))
    run_until_signal(lambda stop: Worker(options, recent).run(stop), read.observe.log_level)
