"""``shoal triton``: a real Triton on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.triton import installation
from shoal.triton.fetch_server import fetch as fetch_server

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Bring a Triton to this machine, without Docker.")

Folder = Annotated[Path | None, typer.Option("--to", help="The folder. Default: $SHOAL_TRITON or .triton.")]


@app.callback()
def triton() -> None:
    """Bring a Triton to this machine, without Docker."""


@app.command()
def fetch(to: Folder = None) -> None:
    """Unpack the wheel that holds a tritonserver (55 MB) beside the project, unless it is there."""
    fetch_server(to.absolute() if to else installation.default_folder(), typer.echo)
