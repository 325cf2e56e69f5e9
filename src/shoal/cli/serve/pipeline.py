"""``shoal serve pipeline``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.places import home_at
from shoal.cli.serve.options import VerifyIdentity
from shoal.errors import ConfigurationError
from shoal.runtime.endpoint import Endpoint


def serve_pipeline(
    name: Annotated[str, typer.Option(help="The pipeline of the service file.")],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where pictures come in, from batchers.")],
    balancer: Annotated[str, typer.Option(metavar="HOST:PORT", help="The router's listener for batching streams.")],
    metrics: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where /metrics is served.")],
    service: Annotated[Path | None, typer.Option(help="The service file. Default: the default service.")] = None,
    home: Annotated[Path | None, typer.Option(help="Shoal's home. Default: $SHOAL_HOME or .shoal.")] = None,
    *,
    verify_identity: VerifyIdentity = False,
) -> None:
    """Runs one pipeline until SIGTERM, then drains."""
    from shoal.observe.metrics import PIPELINE
    from shoal.observe.operators import serve_metrics
    from shoal.pipeline.options import PipelineOptions
    from shoal.pipeline.server import PipelineProcess
    from shoal.runtime.signals import run_until_signal
    from shoal.service import spec  # the extra may be missing

    read = spec.load(service)
    if name not in read.pipelines:
        raise ConfigurationError(f"--name {name}: the service file has {', '.join(read.pipelines) or 'no pipeline'}")
    where = Endpoint.parse(listen), Endpoint.parse(balancer)
    options = PipelineOptions(read, home_at(home), name, *where, service, verify_identity)
    serve_metrics(Endpoint.parse(metrics), PIPELINE)
    run_until_signal(lambda stop: PipelineProcess(options).run(stop), read.observe.log_level)
