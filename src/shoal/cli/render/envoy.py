"""``shoal render envoy``: what Envoy is told, to read or to run on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.places import home_at
from shoal.errors import ConfigurationError
from shoal.router.keeper import ConfigKeeper, write


def envoy(
    topology: Annotated[Path, typer.Option(help="Where each part listens (JSON).")],
    service: Annotated[Path | None, typer.Option(help="The service file; without one, the defaults.")] = None,
    home: Annotated[Path | None, typer.Option(help="Shoal's home; by default $SHOAL_HOME or .shoal.")] = None,
    output: Annotated[Path | None, typer.Option(help="A folder to write to, instead of printing.")] = None,
    show_secrets: Annotated[bool, typer.Option("--show-secrets", help="Don't redact the API keys.")] = False,
) -> None:
    """Print Envoy's files, or write them to a folder where Envoy can run on them."""
    keeper = ConfigKeeper(service_file=service, topology_file=topology, home=home_at(home))
    if output is None:
        _print(keeper, show_secrets=show_secrets)
        return
    if not show_secrets:
        raise ConfigurationError(
            "Envoy can't run on redacted keys; add --show-secrets to write the real ones (mode 0600)"
        )
    write(output, keeper.files(output.absolute()))


def _print(keeper: ConfigKeeper, *, show_secrets: bool) -> None:
    for name, text in keeper.files(keeper.folder).items():
        typer.echo(f"// {name}")
        typer.echo(text if show_secrets else keeper.redacted(text))
