"""``shoal analyze``: pictures in, what a pipeline found in each out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from shoal.cli.analysis_report import caption, record, table
from shoal.cli.calls import PIPE_COLUMNS, Calls, with_call_options
from shoal.cli.terminal import shown_json
from shoal.errors import ConfigurationError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shoal.cli.analysis_report import Analyzed
    from shoal.client import Analysis


@with_call_options
def analyze(
    calls: Calls,
    *,
    pipeline: Annotated[str, typer.Option(help="The pipeline's name in the service file.", show_default=False)],
    draw: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Save each picture with its boxes here.", show_default=False)
    ] = None,
) -> None:
    """Find boxes in pictures and look closer at each. Exit code 1 if any picture, or part of one, failed."""
    save, done, failed = _saver(draw), [], False
    for analyzed in _analyzed(calls, pipeline):
        save(analyzed)
        failed |= analyzed[2] is not None or _lacks_a_part(analyzed[1])
        if calls.as_json:
            typer.echo(shown_json(record(*analyzed)))
        else:
            done.append(analyzed)
    if not calls.as_json:
        # A pipe has no width of its own, and cutting labels would help nobody.
        Console(width=None if Console().is_terminal else PIPE_COLUMNS).print(table(done))
    if failed:
        raise typer.Exit(1)


def _analyzed(calls: Calls, pipeline: str) -> Iterator[Analyzed]:
    """What came of each picture, in their order."""
    try:
        with calls.client() as client:
            outcomes = client.map_analyze(
                calls.files,
                pipeline,
                ordered=True,
                concurrency=calls.concurrency,
                region=calls.part,
                priority=calls.priority,
            )
            for file, outcome in zip(calls.files, outcomes, strict=True):
                yield file, outcome.result, outcome.error
    except Unavailable as away:  # with --json each picture has its line all the same
        if not calls.as_json:
            raise
        yield from ((file, None, away) for file in calls.files)


def _lacks_a_part(found: Analysis | None) -> bool:
    return found is not None and any(found.unanswered())


def _saver(folder: Path | None) -> Callable[[Analyzed], None]:
    if folder is None:
        return lambda _: None
    try:
        from shoal.cli.draw import Drawer, with_captions  # OpenCV isn't part of the base install
    except ModuleNotFoundError:
        raise ConfigurationError("--draw needs OpenCV: pip install opencv-python-headless") from None
    drawer = Drawer(folder)

    def save(analyzed: Analyzed) -> None:
        file, found, _ = analyzed
        if found is not None:
            captions = [(finding.box, caption(finding)) for finding in found.findings]
            drawer.save(file, ".boxes.jpg", lambda pixels: with_captions(pixels, captions))

    return save
