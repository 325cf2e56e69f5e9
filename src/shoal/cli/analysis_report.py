"""How ``shoal analyze`` shows what a pipeline found in each picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from shoal.cli.report import box_record, class_record, mask_record, where
from shoal.cli.terminal import shown
from shoal.client import Analysis
from shoal.errors import ShoalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from shoal.client import Finding, StepResult

Analyzed: TypeAlias = tuple[Path, Analysis | None, ShoalError | None]
"""A picture, and what was found in it, or why it failed."""


def record(image: Path, found: Analysis | None, error: ShoalError | None) -> dict[str, Any]:
    """The JSON object of one picture."""
    if found is None:
        return {"image": str(image), "error": _error(error)}
    return {
        "image": str(image),
        "image_uuid": found.image_uuid,
        "pipeline": found.model_name,
        "findings": [_finding(each) for each in found.findings],
        "steps": [
            {"step": each.step, "model": each.model_name, "calls": each.calls, "failed": each.failed}
            | {"total_us": each.total_us, "batch_size": each.timing.batch_size}
            for each in found.steps
        ],
        "total_us": found.total_us,
    }


def table(analyzed: Iterable[Analyzed]) -> Table:
    """A row a box, those of later steps below theirs; a picture's time, in milliseconds, stands in its first row."""
    made = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), caption="times in ms")
    for name in ("image", "found", "says"):
        made.add_column(name, overflow="fold")
    for name in ("score", "total"):
        made.add_column(name, justify="right", no_wrap=True)
    for image, found, error in analyzed:
        if found is None:
            made.add_row(shown(image.name), Text(shown(_reason(error)), style="red"))
            continue
        rows = list(_rows(found.findings, "")) or [("nothing", "", "")]
        for number, (box, says, score) in enumerate(rows):
            first = ("", "") if number else (image.name, f"{found.total_us / 1000:.1f}")
            made.add_row(Text(shown(first[0])), Text(shown(box)), Text(shown(says)), score, first[1])
    return made


def caption(finding: Finding) -> str:
    """A box's class and what the next steps say, in one line."""
    return ", ".join([finding.box.label, *filter(None, map(_says, finding.results))])


def _rows(findings: Iterable[Finding], indent: str) -> Iterator[tuple[str, str, str]]:
    for finding in findings:
        says = "; ".join(f"{each.step}: {_says(each) or 'nothing'}" for each in finding.results)
        yield f"{indent}{where(finding.box)}", says, f"{finding.box.score:.3f}"
        for result in finding.results:
            yield from _rows(result.findings, f"{indent}  ")


def _says(result: StepResult) -> str:
    if result.error is not None:
        return _reason(result.error)
    if result.classes:
        return f"{result.classes[0].label} {result.classes[0].probability:.3f}"
    if result.mask is not None:
        return ", ".join(region.label or str(region.index) for region in result.mask.regions)
    return ", ".join(each.box.label for each in result.findings)


def _finding(found: Finding) -> dict[str, Any]:
    return {**box_record(found.box), "results": [_result(each) for each in found.results]}


def _result(told: StepResult) -> dict[str, Any]:
    about: dict[str, Any] = {"step": told.step, "model": told.model_name}
    if told.error is not None:
        return about | {"error": _error(told.error)}
    if told.mask is not None:
        return about | mask_record(told.mask)
    if told.classes:
        return about | {"classes": [class_record(each) for each in told.classes]}
    return about | {"findings": [_finding(each) for each in told.findings]}


def _error(error: ShoalError | None) -> dict[str, str]:
    return {"code": error.code.name, "message": str(error)} if error is not None else {}


def _reason(error: ShoalError | None) -> str:
    return f"{error.code.name}: {error}" if error is not None else ""
