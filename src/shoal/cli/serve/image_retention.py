"""``shoal serve image-retention``: for a job that runs now and then."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.places import home_at
from shoal.errors import ConfigurationError
from shoal.pictures.objectstore import open_configured
from shoal.pictures.retention import expire
from shoal.runtime import logs
from shoal.service import spec


def serve_image_retention(
    *,
    service: Annotated[Path, typer.Option(help="The service file; its object_store says which pictures, and how old.")],
    home: Annotated[Path | None, typer.Option(help="Shoal's home. Default: $SHOAL_HOME or .shoal.")] = None,
) -> None:
    """Delete the pictures that are older than object_store.retention_hours, once. Other objects stay."""
    read = spec.load(service)
    if read.object_store.runs_locally:
        raise ConfigurationError(
            f"{service}: object_store: 'shoal up' runs this store and deletes its old pictures itself; set managed: "
            "false or an endpoint for one that is elsewhere"
        )
    logs.configure(read.observe.log_level)
    store = open_configured(read, home_at(home))
    expire(store, read.object_store.retention_hours)
