"""``shoal classify`` and ``shoal detect``: pictures in, a table or a line of JSON a picture out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.calls import DEFAULT_MODELS, Calls, drawer_for, with_call_options
from shoal.modelconfig.model import Task


@with_call_options
def classify(
    calls: Calls,
    *,
    model: Annotated[str, typer.Option(help="The model's name.")] = DEFAULT_MODELS[Task.CLASSIFICATION],
    top_k: Annotated[int, typer.Option(min=1, max=1000, help="Classes a picture.")] = 5,
) -> None:
    """Label pictures. Exit code 1 if any failed."""
    calls.run(Task.CLASSIFICATION, model, top_k=top_k)


@with_call_options
def detect(
    calls: Calls,
    *,
    model: Annotated[str, typer.Option(help="The model's name.")] = DEFAULT_MODELS[Task.DETECTION],
    score_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave boxes below it out.", show_default="the model's")
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Save each picture with its boxes here.", show_default=False)
    ] = None,
) -> None:
    """Find boxes in pictures. Exit code 1 if any failed."""
    calls.run(Task.DETECTION, model, [drawer_for(draw)], score_threshold=score_threshold)
