"""The report's plots, as SVG for a page: in its text colour, without a background, the same for the same figures."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

    from shoal.client.report.figures import Figures

_INK = "#010203"
"""Stands for the page's text colour, which a plot can't know."""
_BLUE, _ORANGE, _RED = "#3b82c4", "#d97f1d", "#c43d3d"
_ERRORS = (_RED, "#a052a5", "#8a6d3b", "#6b7280")
_STAGES = ("#8fa7bf", "#c9b458", "#5aa469", "#4f86c6", "#b0567d", "#9ca3af")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "shoal",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), _INK
    ),
}
_MARKED = {0.50: "p50", 0.95: "p95", 0.99: "p99"}


def latency_histogram(figures: Figures) -> str:
    """How many requests took how long."""

    def draw(axes: Axes) -> None:
        buckets = figures.histogram
        axes.bar(
            [bucket.low_ms for bucket in buckets],
            [bucket.count for bucket in buckets],
            [bucket.high_ms - bucket.low_ms for bucket in buckets],
            align="edge",
            color=_BLUE,
        )
        axes.set_xscale("log")
        _plain(axes, "x")
        axes.set(xlabel="latency, ms", ylabel="requests")
        for quantile, latency in figures.curve:
            if name := _MARKED.get(quantile):
                axes.axvline(latency, color=_ORANGE, linestyle="--", linewidth=1)
                axes.annotate(name, (latency, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom")

    return svg(draw)


def latency_curve(figures: Figures) -> str:
    """The latency that a share of the requests stays under; the axis stretches the slow end."""

    def draw(axes: Axes) -> None:
        places = [1 / (1 - quantile) for quantile, _ in figures.curve]
        axes.plot(places, [latency for _, latency in figures.curve], marker="o", markersize=3, color=_BLUE)
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{100 * quantile:g}" for quantile, _ in figures.curve])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.tick_params(axis="x", labelsize=8, rotation=45)
        axes.set_ylim(bottom=0)
        axes.set(xlabel="% of the requests", ylabel="latency, ms")

    return svg(draw)


def throughput(figures: Figures) -> str:
    """Answers and errors a second, over time."""

    def draw(axes: Axes) -> None:
        times = [one.begin for one in figures.bins]
        below = [one.answers_per_s for one in figures.bins]
        axes.bar(times, below, figures.bin_seconds, align="edge", color=_BLUE, label="answers")
        for place, code in enumerate(figures.bins[0].errors_per_s if figures.bins else ()):
            height = [one.errors_per_s[code] for one in figures.bins]
            colour = _ERRORS[place % len(_ERRORS)]
            axes.bar(times, height, figures.bin_seconds, below, align="edge", color=colour, label=code)
            below = [low + one for low, one in zip(below, height, strict=True)]
        if figures.offered_per_s is not None:
            axes.axhline(figures.offered_per_s, color=_ORANGE, linestyle="--", linewidth=1, label="offered")
        axes.set(xlabel="seconds", ylabel="a second")
        _legend(axes)

    return svg(draw)


def latency_over_time(figures: Figures) -> str:
    """p50 and p99 of what was answered in each stretch."""

    def draw(axes: Axes) -> None:
        for name, colour in (("p99", _ORANGE), ("p50", _BLUE)):
            known = [(one.begin, value) for one in figures.bins if (value := getattr(one, f"{name}_ms")) is not None]
            times = [begin + figures.bin_seconds / 2 for begin, _ in known]
            axes.plot(times, [value for _, value in known], color=colour, label=name)
        axes.set_ylim(bottom=0)
        axes.set(xlabel="seconds", ylabel="latency, ms")
        _legend(axes)

    return svg(draw)


def batch_sizes(figures: Figures) -> str:
    """The share of batches of each size."""

    def draw(axes: Axes) -> None:
        sizes = list(figures.batch_share)
        axes.bar(sizes, [100 * share for share in figures.batch_share.values()], color=_BLUE)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="requests in the batch", ylabel="% of the batches")

    return svg(draw)


def stages(figures: Figures) -> str:
    """The mean request, from left to right."""

    def draw(axes: Axes) -> None:
        left = 0.0
        for stage, colour in zip(figures.stages, _STAGES, strict=True):
            axes.barh([0], [stage.mean_ms], left=left, color=colour, label=f"{stage.name} {stage.mean_ms:,.1f} ms")
            left += stage.mean_ms
        axes.set_yticks([])
        axes.grid(visible=False, axis="y")
        axes.set(xlabel="mean, ms")
        axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return svg(draw, height=1.9)


def svg(draw: Callable[[Axes], None], height: float = 3.0) -> str:
    """What ``draw`` puts onto the axes, for a page."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.0, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        axes.patch.set_alpha(0)
        axes.set_axisbelow(True)
        draw(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    return re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)


def _plain(axes: Axes, which: str) -> None:
    """Numbers rather than powers of ten."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    for set_formatter in (axis.set_major_formatter, axis.set_minor_formatter):
        set_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:.0e}"[0] in "125" else ""))


def _legend(axes: Axes) -> None:
    axes.legend(ncols=6, loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)
