"""How ``shoal classify``, ``detect`` and ``segment`` show what became of each picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from shoal.cli.terminal import shown
from shoal.client import Classification, Detection, Segmentation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shoal.client import Box, Class, Outcome, Result, Timing

STAGES = ("queue", "fetch", "decode", "compute", "total")
_SHOWN_STAGES = ("upload", *STAGES)
_DIGITS = 6  # a float32 has no more


def record(outcome: Outcome[Result]) -> dict[str, Any]:
    """The JSON object of one picture."""
    image = str(outcome.image)
    if outcome.error is not None:
        return {"image": image, "error": {"code": outcome.error.code.name, "message": str(outcome.error)}}
    result = outcome.unwrap()
    return {
        "image": image,
        "image_uuid": result.image_uuid,
        "model": result.model_name,
        **_findings(result),
        "timing_us": {stage: getattr(result.timing, f"{stage}_us") for stage in STAGES},
        "batch_size": result.timing.batch_size,
        **({"cached": True} if result.timing.cached else {}),
    }


def table(outcomes: Iterable[Outcome[Result]]) -> Table:
    """A row a class, box or region; a picture's name, batch size and times (milliseconds) stand in its first row."""
    made = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), caption="times in ms; compute is the whole batch's")
    made.add_column("image", overflow="fold")
    made.add_column("found", overflow="fold")
    for name in ("score", "batch", *_SHOWN_STAGES):
        made.add_column(name, justify="right", no_wrap=True)
    for outcome in outcomes:
        _add_rows(made, outcome)
    return made


def _add_rows(made: Table, outcome: Outcome[Result]) -> None:
    name = Text(shown(outcome.image.name if isinstance(outcome.image, Path) else str(outcome.image)))
    if outcome.error is not None:
        made.add_row(name, Text(shown(f"{outcome.error.code.name}: {outcome.error}"), style="red"))
        return
    result = outcome.unwrap()
    found = _found(result)
    for number, (label, score) in enumerate(found or [("nothing", "")]):
        times = [] if number else _times(result.timing)
        made.add_row("" if number else name, Text(shown(label)), score, *times)


def _times(timing: Timing) -> list[str]:
    return [str(timing.batch_size), *(f"{getattr(timing, f'{stage}_us') / 1000:.1f}" for stage in _SHOWN_STAGES)]


def _found(result: Result) -> list[tuple[str, str]]:
    if isinstance(result, Classification):
        return [_class(one) for one in result.classes]
    return _boxes(result.boxes) if isinstance(result, Detection) else _regions(result)


def _class(found: Class) -> tuple[str, str]:
    return f"{found.index} {found.label}", f"{found.probability:.3f}"


def _boxes(boxes: Iterable[Box]) -> list[tuple[str, str]]:
    return [(where(box), f"{box.score:.3f}") for box in boxes]


def where(box: Box) -> str:
    """A box in a few words."""
    return f"{box.label} {box.x:.2f},{box.y:.2f} {box.width:.2f}x{box.height:.2f}"


def _regions(found: Segmentation) -> list[tuple[str, str]]:
    """The score is the region's share of the mask."""
    pixels = found.width * found.height
    return [(f"{region.index} {region.label}", f"{region.pixels / pixels:.3f}") for region in found.regions]


def _findings(result: Result) -> dict[str, Any]:
    if isinstance(result, Classification):
        return {"classes": [class_record(one) for one in result.classes]}
    if isinstance(result, Segmentation):
        return mask_record(result)
    return {"boxes": [box_record(box) for box in result.boxes]}


def mask_record(found: Segmentation) -> dict[str, Any]:
    """What is told of a mask in JSON."""
    return {
        "mask": {"width": found.width, "height": found.height},
        "regions": [
            {"index": region.index, "label": region.label, "pixels": region.pixels}
            | ({"counts": region.counts} if region.counts else {})
            for region in found.regions
        ],
    }


def class_record(found: Class) -> dict[str, Any]:
    """The JSON object of a class."""
    return {"index": found.index, "label": found.label, "probability": round(found.probability, _DIGITS)}


def box_record(box: Box) -> dict[str, Any]:
    """The JSON object of a box."""
    return {
        **{side: round(getattr(box, side), _DIGITS) for side in ("x", "y", "width", "height")},
        "label": box.label,
        "score": round(box.score, _DIGITS),
    }
