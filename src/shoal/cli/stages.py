"""``--stages`` of ``shoal simulate`` and ``shoal plan``."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Stages: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SOURCE",
        help="Take what preparing a picture takes from the service's histograms: a worker's http://HOST:PORT/metrics "
        "(again for each worker), a file with such a page, or the URL of a Prometheus, of which the last day counts.",
    ),
]
