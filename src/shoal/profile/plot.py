"""A profile as a picture: images a second and latency against batches in flight."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from shoal.profile.records import Cell

NAMES: Final = ("profile.png", "profile.svg")
STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "shoal",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def draw(
    cells: Sequence[Cell], title: str, folder: Path, slo_ms: float | None = None, names: Sequence[str] = NAMES
) -> None:
    """Writes ``names`` to ``folder``: a line each number of instances and batch size, bars for the rounds' range.

    Raises:
        OSError: the disk is full, say.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        rate, latency = figure.subplots(1, 2)
        for colour, (label, line) in enumerate(_lines(cells)):
            _rate(rate, line, label, f"C{colour % 10}")
            _latency(latency, line, f"C{colour % 10}")
        if slo_ms is not None:
            latency.axhline(slo_ms, color="black", linestyle=":", linewidth=1)
            latency.annotate(f"{slo_ms:g} ms", (1, slo_ms), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        for axes in (rate, latency):
            in_flight_axis(axes, sorted({cell.concurrency for cell in cells}))
        rate.set_ylabel("images/s")
        latency.set_ylabel("latency, ms: p99 (p50 dashed)")
        figure.suptitle(title, fontsize=10)
        figure.legend(loc="outside lower center", ncols=4)
        for name in names:
            beside = folder / f".{name}"
            figure.savefig(beside, dpi=120, format=name.rpartition(".")[2])
            beside.replace(folder / name)


def in_flight_axis(axes: Axes, numbers: Sequence[int]) -> None:
    """Makes batches in flight, powers of two as a rule, the x-axis, and lets the other begin at 0."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axes.set_xlabel("batches in flight")


def _lines(cells: Sequence[Cell]) -> Iterator[tuple[str, list[Cell]]]:
    ordered = sorted(cells, key=lambda cell: cell.setting)
    several = len({cell.instances for cell in cells}) > 1
    for (instances, batch), line in groupby(
        sorted(ordered, key=lambda cell: (cell.instances, cell.batch)), key=lambda cell: (cell.instances, cell.batch)
    ):
        of = f", {instances} instance{'s' if instances > 1 else ''}" if several else ""
        yield f"batch {batch}{of}", list(line)


def _rate(axes: Axes, line: Sequence[Cell], label: str, colour: str) -> None:
    middle = [cell.images_per_s.median for cell in line]
    axes.errorbar(
        [cell.concurrency for cell in line],
        middle,
        [
            [cell.images_per_s.median - cell.images_per_s.min for cell in line],
            [cell.images_per_s.max - cell.images_per_s.median for cell in line],
        ],
        marker="o",
        markersize=4,
        capsize=3,
        color=colour,
        label=label,
    )


def _latency(axes: Axes, line: Sequence[Cell], colour: str) -> None:
    in_flight = [cell.concurrency for cell in line]
    axes.plot(in_flight, [cell.p99_ms.median for cell in line], marker="o", markersize=4, color=colour)
    axes.plot(in_flight, [cell.p50_ms.median for cell in line], linestyle="--", color=colour)
