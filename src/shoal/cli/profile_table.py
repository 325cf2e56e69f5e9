"""How ``shoal profile`` shows what it measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shoal.profile.records import Cell, Subject

_MERGED: Final = 1.05
"""Times its size: so large an execution was more than one batch."""
_FOR_P99: Final = 100


def table(cells: Sequence[Cell], subject: Subject) -> Table:
    """A row a cell: medians over the rounds, and the range of images a second."""
    shown = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"{subject.model} version {subject.version}, {subject.engine} {subject.engine_version}",
        caption=f"median of {max(len(cell.rounds) for cell in cells)} rounds (least-most); latency of a batch",
    )
    for name in ("instances", "batch", "in flight", "images/s", "", "p50, ms", "p99, ms", ""):
        shown.add_column(name, justify="right" if name else "left", no_wrap=True)
    for cell in cells:
        rate = cell.images_per_s
        shown.add_row(
            *map(str, cell.setting),
            f"{rate.median:,.1f}",
            f"({rate.min:,.1f}-{rate.max:,.1f})" if len(cell.rounds) > 1 else "",
            f"{cell.p50_ms.median:,.2f}",
            f"{cell.p99_ms.median:,.2f}",
            "".join(mark for mark, _ in _marks(cell)),
        )
    return shown


def notes(cells: Sequence[Cell]) -> list[str]:
    """What the marks in the table mean."""
    return [f"{mark} {text}" for mark, text in sorted({told for cell in cells for told in _marks(cell)})]


def described(cell: Cell) -> str:
    """A setting and what it gave, in a line."""
    instances = f"{cell.instances} instance{'' if cell.instances == 1 else 's'}"
    return (
        f"{instances}, batches of {cell.batch}, {cell.concurrency} in flight: "
        f"{cell.images_per_s.median:,.1f} images/s, p99 {cell.p99_ms.median:,.2f} ms"
    )


def _marks(cell: Cell) -> Iterator[tuple[str, str]]:
    if not cell.settled:
        yield (
            "*",
            "the rate never was steady within the warm-up: something else used the machine, or --warm-up is short",
        )
    if min(one.batches for one in cell.rounds) < _FOR_P99:
        yield "+", f"a round had fewer than {_FOR_P99} batches, so its p99 is its slowest one: raise --duration"
    if cell.executed_batch is not None and cell.executed_batch > _MERGED * cell.batch:
        yield "#", "Triton's dynamic batcher merged batches, so executions were larger: --instances measures without it"
