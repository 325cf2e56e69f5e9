"""``shoal plan``: how many GPUs, which models share them, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from shoal.cli.plan_table import sentences, table
from shoal.cli.stages import Stages
from shoal.errors import ConfigurationError
from shoal.plan import document, planning
from shoal.plan.answers import answers
from shoal.plan.figures import figures
from shoal.plan.history import History
from shoal.plan.history import read as read_history
from shoal.plan.prometheus import fetch
from shoal.plan.service_file import service_file
from shoal.plan.trial import REQUESTS, Bench
from shoal.runtime.files import replace_file
from shoal.simulate.stages import read as read_stages

_PIPE_COLUMNS = 160


def plan(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Models, load and hardware: docs/plan.md.")],
    *,
    explain: Annotated[bool, typer.Option("--explain", help="Answer what the load makes of the choice.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    write_service: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the choice as a service file, for up and for Helm.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write a page with tables and plots.")] = None,
    history: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Past load: hour, model, per_s. For --explain.")
    ] = None,
    prometheus: Annotated[
        str | None, typer.Option(metavar="URL", help="Plan for the load that this Prometheus saw.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=90, help="Of --prometheus.")] = 14,
    stages: Stages = None,
    requests: Annotated[int, typer.Option(min=1000, help="Of each simulation.")] = REQUESTS,
    seed: Annotated[int, typer.Option(help="Of chance: the same gives the same plan.")] = 1,
) -> None:
    """Plan models on GPUs: the lower bound, placements compared, the winner simulated before it is named.

    Exit code 1 if no placement keeps the objectives on the hardware that there is.
    """
    if history is not None and prometheus is not None:
        raise ConfigurationError("expected one of --history and --prometheus: both tell the past load")
    wanted = document.load(file)
    past = _past(history, prometheus, days)
    if past is not None and prometheus is not None:
        wanted = past.planned_for(wanted)
    models = planning.models_of(wanted, file.parent, read_stages(stages) if stages else None)
    if report is not None:
        from shoal.plan import page  # what draws is another extra

        page.prepare(report)
    bench = Bench(
        wanted.hardware.gpus_per_server, seed, requests, process_images_per_s=wanted.sizing.process_images_per_s
    )
    errors = Console(stderr=True)
    with errors.status("") as shown:
        found = planning.plan(wanted, models, bench, lambda text: shown.update(f"simulating: {text}"))
        told = answers(found, past) if explain or report else []
    _show(found, told if explain else [], as_json=as_json)
    if write_service is not None:
        _write(write_service, found)
    if report is not None:
        typer.echo(page.write(report, found, told), err=as_json)
    if found.gpus is None or found.gpus > (wanted.hardware.gpus or found.gpus):
        raise typer.Exit(1)


def _past(history: Path | None, prometheus: str | None, days: int) -> History | None:
    if history is not None:
        return read_history(history)
    return None if prometheus is None else fetch(prometheus, days)


def _show(found: planning.Plan, told: list[tuple[str, str]], *, as_json: bool) -> None:
    if as_json:
        answered = {"answers": [{"question": asked, "answer": answer} for asked, answer in told]} if told else {}
        typer.echo(json.dumps({**figures(found), **answered}, indent=1))
        return
    console = Console()
    if not console.is_terminal:
        console.width = _PIPE_COLUMNS
    console.print(table(found))
    for sentence in sentences(found):
        console.print(sentence, highlight=False)
    for asked, answer in told:
        console.print(f"\n[bold]{asked}[/bold]\n{answer}", highlight=False)


def _write(path: Path, found: planning.Plan) -> None:
    if found.winner is None or found.winner.needed is None:
        raise ConfigurationError("--write-service: no placement keeps the objectives, so there is nothing to write")
    replace_file(path, service_file(found, found.winner), mode=None)
    typer.echo(f"{path}", err=True)
