"""``shoal segment``: pictures in; what covers how much of each, and masks, out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.cli.calls import Calls, drawer_for, with_call_options
from shoal.cli.output import OutputFolder
from shoal.client import MaskForm, MaskSize, Segmentation
from shoal.modelconfig.model import Task

if TYPE_CHECKING:
    from shoal.cli.calls import Saver
    from shoal.client import Outcome, Result


@with_call_options
def segment(
    calls: Calls,
    *,
    model: Annotated[str, typer.Option(help="The model's name.", show_default=False)],
    score_threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Of a model with one class: least probability.", show_default="the model's"),
    ] = None,
    mask_size: Annotated[MaskSize, typer.Option(help="As fine as the model, or as the picture.")] = MaskSize.MODEL,
    runs: Annotated[bool, typer.Option("--runs", help="With --json: COCO's run lengths of each region.")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Save each mask here, as a PNG.", show_default=False)
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Save each picture with its mask here.", show_default=False)
    ] = None,
) -> None:
    """Tell the class of each pixel of pictures. Exit code 1 if any failed."""
    calls.run(
        Task.SEGMENTATION,
        model,
        [drawer_for(draw), _mask_saver(output)],
        score_threshold=score_threshold,
        mask_form=MaskForm.RUNS if runs else MaskForm.PNG,
        mask_size=mask_size,
    )


def _mask_saver(folder: Path | None) -> Saver:
    """What saves each outcome's mask as ``<folder>/<name>.mask.png``."""
    if folder is None:
        return lambda _outcome: None
    place = OutputFolder(folder, "--output")

    def save(outcome: Outcome[Result]) -> None:
        if isinstance(outcome.result, Segmentation) and isinstance(outcome.image, Path):
            place.path(outcome.image, ".mask.png").write_bytes(outcome.result.to_png())

    return save
