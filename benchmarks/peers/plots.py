"""The plots: images a second, latency and CPU time; small pictures at the left, 12 megapixels at the right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib import pyplot as plt

from benchmarks.peers.cells import CEILING, SHOAL, SHOAL_WITH_UPLOAD
from benchmarks.peers.pictures import Size
from benchmarks.peers.tables import SIZES, label, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

    Result = Mapping[str, Any]

BLUE, PALE, RED, YELLOW, GREEN, GREY = "#4c6a92", "#8fb0d3", "#d1495b", "#edae49", "#7a9e7e", "#b5b5b5"
_COLOURS = {CEILING: GREY, SHOAL: RED, SHOAL_WITH_UPLOAD: RED}


def speed(result: Result, size: Size, axes: Axes) -> None:
    """Median and range."""
    rows = rows_of(result, size)
    rates = [row["images_per_s"] for row in rows]
    spread = [[rate["median"] - rate["min"] for rate in rates], [rate["max"] - rate["median"] for rate in rates]]
    colours = [_COLOURS.get(row["way"], BLUE if row["decoder"] == "shoal" else PALE) for row in rows]
    names = [label(result, row) for row in rows]
    bars = axes.barh(names, [rate["median"] for rate in rates], xerr=spread, color=colours, ecolor="#555555")
    axes.bar_label(bars, fmt="%.0f", fontsize="small", padding=4)
    axes.set_xlabel(f"images/s, {SIZES[size]}")


def latency(result: Result, size: Size, axes: Axes) -> None:
    """p50 and p99 at half of each one's rate."""
    rows = [row for row in rows_of(result, size) if row["half"] and row["half"]["answers"]]
    names = [label(result, row) for row in rows]
    axes.barh(names, [row["half"]["p99_ms"] for row in rows], color=YELLOW, label="p99")
    axes.barh(names, [row["half"]["p50_ms"] for row in rows], color=BLUE, label="p50")
    axes.set_xlabel(f"ms at half load, {SIZES[size]}")
    axes.legend(fontsize="small", frameon=False)


def cpu(result: Result, size: Size, axes: Axes) -> None:
    """Server, store and client."""
    rows = rows_of(result, size)
    names = [label(result, row) for row in rows]
    left = [0.0] * len(rows)
    for part, colour in (("server", BLUE), ("store", GREEN), ("client", GREY)):
        values = [row["cpu_ms_per_image"].get(part, 0.0) for row in rows]
        axes.barh(names, values, left=left, color=colour, label=part)
        left = [before + value for before, value in zip(left, values, strict=True)]
    axes.set_xlabel(f"CPU ms an image, {SIZES[size]}")
    axes.legend(fontsize="small", frameon=False)


PLOTS: dict[str, Callable[[Result, Size, Axes], None]] = {"speed": speed, "latency": latency, "cpu": cpu}


def draw(result: Result, folder: Path) -> None:
    """All plots, as ``peers-<name>.png``."""
    for name, plot in PLOTS.items():
        figure, axes = plt.subplots(1, len(Size), figsize=(12, 4.2), layout="constrained")
        for size, one in zip(Size, axes, strict=True):
            plot(result, size, one)
            one.invert_yaxis()
            one.margins(x=0.15)
        figure.savefig(folder / f"peers-{name}.png", dpi=110)
        plt.close(figure)
