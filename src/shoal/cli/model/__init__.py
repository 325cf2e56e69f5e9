"""``shoal model``: what is in the model store.

May use: cli, errors, modelconfig, modelstore, modelstore/making, modelstore/publishing, runtime, service, triton.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.model.adding import add
from shoal.cli.model.store import Store, line, store_at
from shoal.cli.model.transfer import pull, push
from shoal.cli.terminal import shown
from shoal.modelconfig.fault import Fault, Severity
from shoal.modelstore import repository, trial
from shoal.modelstore.check import check as check_model
from shoal.modelstore.compare import compare
from shoal.modelstore.making.published import PUBLISHED
from shoal.runtime.endpoint import Endpoint

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Add, list, check, push and pull models.")
app.command()(push)
app.command()(pull)
app.command()(add)


@app.command("list")
def list_models(store: Store = None) -> None:
    """List the models that can be served; broken ones go to standard error."""
    models, faults = repository.scan(store_at(store))
    for model in models.values():
        typer.echo(line(model))
    for fault in faults:
        typer.echo(shown(f"broken: {fault}"), err=True)
    if not models and not faults:
        typer.echo(f"{store_at(store)} holds no models; `shoal model add {next(iter(PUBLISHED))}` adds one", err=True)


@app.command()
def check(
    name: Annotated[str | None, typer.Argument(help="A model; all of them if left out.")] = None,
    triton: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Compare with what this Triton serves, over gRPC.")
    ] = None,
    run: Annotated[bool, typer.Option(help="Run a few pictures, as a worker does: here, or at that Triton.")] = True,
    store: Store = None,
) -> None:
    """Name every fault of a model, file and field; exit 1 if one can't be served, or is served otherwise."""
    place = store_at(store)
    names = repository.names(place) if name is None else [name]
    faults = {model: check_model(place, model, run=run and triton is None) for model in names}
    if triton is not None:
        asyncio.run(_compare(place, Endpoint.parse(triton), faults, run=run))
    broken = False
    for model, found in faults.items():
        for fault in found:
            typer.echo(shown(f"{fault.severity}: {fault}"))
        wrong = any(fault.severity is Severity.ERROR for fault in found)
        typer.echo(f"{model}: {'broken' if wrong else 'good'}")
        broken |= wrong
    if broken:
        raise typer.Exit(1)


async def _compare(place: Path, endpoint: Endpoint, faults: dict[str, list[Fault]], *, run: bool) -> None:
    """Adds what differs, and with ``run`` what comes of trying what doesn't."""
    from shoal.triton.client import TritonClient  # tritonclient takes 0.3 s to import

    async with TritonClient(str(endpoint)) as server:
        for model, found in faults.items():
            report = await compare(place / model, server)
            if run and not report.errors and all(fault.severity is not Severity.ERROR for fault in found):
                await trial.through(server, place / model, report)
            found.extend(report.faults)
