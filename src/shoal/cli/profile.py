"""``shoal profile``: what a model gives at each number of instances, batch size and number of batches in flight."""

from __future__ import annotations

import asyncio
import shlex
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shoal.cli.profile_table import described, notes, table
from shoal.cli.profile_target import ProfileOptions, open_target
from shoal.errors import ConfigurationError
from shoal.profile import choice
from shoal.profile.book import Book
from shoal.profile.grid import numbers
from shoal.profile.measure import measure
from shoal.profile.observer import Pace
from shoal.profile.records import FILE
from shoal.runtime.signals import loop_factory
from shoal.service.home import Home

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.profile.records import Cell, Profile, Setting, Subject

_PIPE_COLUMNS = 120


def profile(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    *,
    triton: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="The gRPC port of a running Triton.", show_default="the embedded engine"
        ),
    ] = None,
    instances: Annotated[
        str | None,
        typer.Option(
            help="Batches that execute at once, such as 1,2. At Triton the model is loaded again for each.",
            show_default="as configured",
        ),
    ] = None,
    batch: Annotated[
        str | None, typer.Option(help="Images a batch, such as 1,8.", show_default="1 and max_batch_size")
    ] = None,
    concurrency: Annotated[str, typer.Option(help="Batches in flight.")] = "1,2,4,8",
    rounds: Annotated[int, typer.Option(min=1, help="Times that each cell is measured, in turn with the others.")] = 3,
    duration: Annotated[float, typer.Option(help="Seconds of each measurement.")] = 3.0,
    warm_up: Annotated[
        float, typer.Option(help="Most seconds of load before it; ends when the rate is steady.")
    ] = 10.0,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Pictures to fill the batches with.", show_default="random numbers"),
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="DIR", show_default="profile/MODEL")] = None,
    force: Annotated[bool, typer.Option("--force", help="Start anew, whatever is in the folder.")] = False,
    plot: Annotated[bool, typer.Option(help="Draw profile.png and profile.svg.")] = True,
    latency_slo_ms: Annotated[
        float | None, typer.Option(help="Name the setting with the most images/s whose p99 is no higher.")
    ] = None,
    write_config: Annotated[
        bool, typer.Option("--write", help="Put that setting into the model's config.pbtxt.")
    ] = False,
    store: Annotated[Path | None, typer.Option(help="The model store; by default `models` in Shoal's home.")] = None,
) -> None:
    """Measure a model at each setting: images/s, p50 and p99.

    Goes on where an earlier run ended; Ctrl-C shows what there is. Exit code 1 if no setting meets --latency-slo-ms.
    """
    if write_config and latency_slo_ms is None:
        raise ConfigurationError("--write needs --latency-slo-ms: it writes the setting that this names")
    options = ProfileOptions(
        model=model,
        store=store or Home.default().models,
        triton=triton,
        instances=None if instances is None else numbers("--instances", instances),
        batches=None if batch is None else numbers("--batch", batch),
        concurrencies=numbers("--concurrency", concurrency),
        rounds=rounds,
        pace=Pace(duration, warm_up),
        images=images,
        output=output or Path("profile") / model,
        force=force,
    )
    options.pace.check()
    if write_config:
        from shoal.modelstore.making import settle  # only who writes needs onnx

        settle.refuse(options.store / model)
    _prepare(options.output, plot=plot)
    cells = _measured(options, plot=plot, slo_ms=latency_slo_ms)
    if latency_slo_ms is not None:
        _choose(cells, latency_slo_ms, options.store / model if write_config else None)


def _prepare(folder: Path, *, plot: bool) -> None:
    """Makes sure, before any work, that what comes of it can be written."""
    if plot and find_spec("matplotlib") is None:
        raise ConfigurationError(
            "the plot needs matplotlib: pip install 'shoal[report]', or leave it out with --no-plot"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigurationError(f"--output {folder}: can't be written: {error.strerror}") from error


def _measured(options: ProfileOptions, *, plot: bool, slo_ms: float | None) -> list[Cell]:
    """The grid's cells, shown, also when it ended early."""
    book = Book(options.output / FILE, force=options.force)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_work(options, book))
    finally:
        cells = book.cells()
        if cells:
            _show(cells, book.profile.subject)
            if plot:
                _draw(cells, book.profile, options.output, slo_ms)
            typer.echo(f"{options.output / FILE}")
    return cells


async def _work(options: ProfileOptions, book: Book) -> None:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )

    def say(text: str) -> None:
        bar.console.print(f"shoal: {text}", highlight=False)

    with bar:
        async with open_target(options, say) as (target, grid):
            book.open(grid, target.subject, shlex.join(["shoal", *sys.argv[1:]]))
            work = [setting for _, setting in grid.missing(book.profile)]
            shown = bar.add_task("loading", total=len(work))

            def begin(setting: Setting) -> None:
                bar.update(shown, description="instances {}, batch {}, in flight {}".format(*setting))

            async for one in measure(target, work, options.pace, begin):
                book.add(one.setting, one.round, one.executed_batch)
                bar.advance(shown)


def _show(cells: Sequence[Cell], subject: Subject) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = _PIPE_COLUMNS
    console.print(table(cells, subject))
    for note in notes(cells):
        console.print(note, style="dim", highlight=False)


def _draw(cells: Sequence[Cell], of: Profile, folder: Path, slo_ms: float | None) -> None:
    from shoal.profile.plot import draw  # what no other command needs

    where = ", ".join(of.machine.gpus) or f"{of.machine.cpu}, {of.machine.cores} cores"
    draw(cells, f"{of.subject.model}, {of.subject.engine} {of.subject.engine_version}, {where}", folder, slo_ms)


def _choose(cells: Sequence[Cell], slo_ms: float, folder: Path | None) -> None:
    """Names the best setting, and writes it to the model in ``folder``."""
    found = choice.best(cells, slo_ms)
    if found is None:
        typer.echo(
            f"no setting has its p99 within {slo_ms:g} ms; closest: {described(choice.closest(cells))}", err=True
        )
        raise typer.Exit(1)
    typer.echo(f"best with p99 within {slo_ms:g} ms: {described(found)}")
    if folder is not None:
        from shoal.modelstore.making.settle import settle

        typer.echo(settle(folder, instances=found.instances, batch=found.batch))
