"""``shoal keys``: create, list and revoke API keys. A running service follows within a second."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shoal.client.connection import find_connection
from shoal.errors import ConfigurationError
from shoal.runtime import trust
from shoal.runtime.priority import Priority
from shoal.service import api_keys, spec
from shoal.service.home import Home

if TYPE_CHECKING:
    from shoal.service.api_keys import Key

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Create, list and revoke API keys.")

File = Annotated[Path | None, typer.Option("--file", help="The keys file; by default the service's own.")]
ServiceFile = Annotated[Path | None, typer.Option("--service", help="The service file, which may name the keys file.")]

_SHOWN = 4  # letters of a secret, to tell keys apart


@app.command()
def create(
    owner: Annotated[str, typer.Option(help="Whose key it is.")],
    models: Annotated[str, typer.Option(help="Names or patterns, with commas, of the models it may call.")] = "*",
    requests_per_second: Annotated[float, typer.Option(min=0, help="At each router. 0: no limit.")] = 0.0,
    prefix: Annotated[str | None, typer.Option(help="Where the pictures lie in the bucket; by default OWNER/.")] = None,
    priority: Annotated[
        Priority, typer.Option(help="bulk: its calls fill what interactive ones leave.")
    ] = Priority.INTERACTIVE,
    file: File = None,
    service: ServiceFile = None,
) -> None:
    """Make a key and print it, this once. Its id goes to standard error."""
    path = _path(file, service)
    names = [name for name in models.split(",") if name]
    key = api_keys.create(
        path, owner, models=names, requests_per_second=requests_per_second, prefix=prefix, priority=priority
    )
    typer.echo(f"{key.id} of {key.owner}, in {path}; keep the key, it is not shown again:", err=True)
    typer.echo(key.key)


@app.command("list")
def list_keys(file: File = None, service: ServiceFile = None) -> None:
    """List the keys, without their secrets."""
    table = Table("id", "key", "owner", "prefix", "models", "requests/s", "priority", box=None, pad_edge=False)
    for key in api_keys.load_keys(_path(file, service)):
        table.add_row(*map(escape, _row(key)))  # a pattern such as res[nt]* is no markup
    Console().print(table)


@app.command()
def local() -> None:
    """Print the key that the commands on this machine use, such as for the console of 'shoal up'."""
    home = Home.default()
    if not home.client.exists():
        raise ConfigurationError(f"no service runs in {home.root}; 'shoal up' starts one")
    typer.echo(find_connection(None, None, home).api_key)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As 'shoal keys list' shows it.")],
    file: File = None,
    service: ServiceFile = None,
) -> None:
    """Remove a key; a running service refuses it within a second."""
    key = api_keys.revoke(_path(file, service), key_id)
    typer.echo(f"{key.id} of {key.owner} is revoked")


def _path(file: Path | None, service: Path | None) -> Path:
    if file is not None:
        return file
    home = Home.default()
    found = home.keys_file(spec.load(service))
    if found == home.keys:
        trust.require_ours(found)
    return found


def _row(key: Key) -> tuple[str, ...]:
    limit = f"{key.requests_per_second:g}" if key.requests_per_second else "no limit"
    prefix, models = key.prefix or "(all)", ", ".join(key.models)
    return key.id, f"…{key.key[-_SHOWN:]}", key.owner, prefix, models, limit, key.priority
