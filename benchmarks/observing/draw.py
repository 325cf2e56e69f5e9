"""A dashboard's panels from the series of a run, laid out on Grafana's grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.observing.boards import Board, Panel, Target
    from benchmarks.observing.prometheus import Series

    Answers = Mapping[Target, Sequence[Series]]
    """Of each query, over the run."""
    Phases = Sequence[tuple[str, float]]
    """What the load was like from which Unix time on."""

_COLUMNS = 24
_COLUMN_INCHES = 0.72
_ROW_INCHES = 0.36
_DPI = 80
_BACKGROUND, _CARD, _TEXT, _FAINT = "#f4f5f5", "#ffffff", "#24292e", "#8a8f94"
_COLOURS = ("#3871dc", "#e0752d", "#299c46", "#a352cc", "#c4162a", "#0f9ba8", "#b58900", "#6e6e6e")
_LIMITS = {"green": "#299c46", "orange": "#ff9830", "red": "#e02f44"}
_MOST_LEGENDS = 6
_TICKS = 4
_WIDE = 8


def draw(board: Board, answers: Answers, phases: Phases, end: float, path: Path) -> None:
    """Writes one dashboard as a picture."""
    rows = max(panel.y + panel.height for panel in board.panels)
    with mpl.rc_context({"font.size": 8, "axes.edgecolor": "#d0d4d9", "text.color": _TEXT, "axes.labelcolor": _TEXT}):
        figure = Figure(figsize=(_COLUMNS * _COLUMN_INCHES, rows * _ROW_INCHES), dpi=_DPI, facecolor=_BACKGROUND)
        for panel in board.panels:
            place = _Place(figure, panel, rows)
            if panel.kind == "row":
                place.title(large=True)
            elif panel.kind == "stat":
                _figure(place, answers)
            else:
                _lines(place, answers, phases, end)
        figure.savefig(path)


class _Place:
    """A panel's rectangle of the picture, in its fractions."""

    def __init__(self, figure: Figure, panel: Panel, rows: int) -> None:
        self.figure = figure
        self.panel = panel
        self.left, self.width = panel.x / _COLUMNS, panel.width / _COLUMNS
        self.bottom, self.height = 1 - (panel.y + panel.height) / rows, panel.height / rows
        self._row = 1 / rows

    def title(self, *, large: bool = False) -> None:
        """Its name, at the top."""
        top = self.bottom + self.height - 0.55 * self._row
        self.figure.text(
            self.left + 0.005, top, self.panel.title, va="center", weight="bold", size=10 if large else 8.5
        )

    def axes(self, left: float, bottom: float, right: float, top: float) -> Axes:
        """Within the card, with margins in units of the grid."""
        column = 1 / _COLUMNS
        card = (self.left + 0.06 * column, self.bottom + 0.08 * self._row)
        self.figure.add_artist(
            mpl.patches.Rectangle(
                card, self.width - 0.12 * column, self.height - 0.16 * self._row, facecolor=_CARD, edgecolor="#dde1e6",
                linewidth=0.8, transform=self.figure.transFigure, zorder=-1,
            )
        )  # fmt: skip
        self.title()
        return self.figure.add_axes((
            self.left + left * column,
            self.bottom + bottom * self._row,
            self.width - (left + right) * column,
            self.height - (bottom + top) * self._row,
        ))  # fmt: skip


def _figure(place: _Place, answers: Answers) -> None:
    axes = place.axes(0.2, 0.25, 0.2, 1.1)
    axes.axis("off")
    (target,) = place.panel.targets
    series = answers[target]
    if not series or not series[0].points:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", color=_FAINT, transform=axes.transAxes)
        return
    times, values = zip(*series[0].points, strict=True)
    colour = _colour_of(place.panel, values[-1])
    axes.fill_between(times, values, min(0, *values), color=colour, alpha=0.12, linewidth=0)
    axes.plot(times, values, color=colour, linewidth=1, alpha=0.5)
    axes.set_ylim(0, 2.4 * max(*values, 1e-9))
    text = _formatter(place.panel.unit)(values[-1])
    axes.text(0.5, 0.62, text, ha="center", va="center", size=21, weight="bold", color=colour, transform=axes.transAxes)


def _colour_of(panel: Panel, value: float) -> str:
    if len(panel.limits) <= 1 or {colour for _, colour in panel.limits} <= {"green"}:
        return _COLOURS[0]
    return _LIMITS[[colour for limit, colour in panel.limits if value >= limit][-1]]


def _lines(place: _Place, answers: Answers, phases: Phases, end: float) -> None:
    panel = place.panel
    axes = place.axes(1.15, 1.6, 0.3, 1.15)
    found = [(target.named(one.labels), one) for target in panel.targets for one in answers[target] if one.points]
    start = phases[0][1]
    if panel.stacked and found:
        _stack(axes, found, start)
    else:
        for (name, one), colour in zip(found, _cycle(len(found)), strict=True):
            times, values = zip(*one.points, strict=True)
            axes.plot([(t - start) / 60 for t in times], values, color=colour, linewidth=1.2, label=name)
    _frame(axes, panel, phases, end)
    if not found:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", color=_FAINT, transform=axes.transAxes)
        return
    handles, names = axes.get_legend_handles_labels()
    axes.legend(
        handles[:_MOST_LEGENDS], names[:_MOST_LEGENDS], loc="upper left", bbox_to_anchor=(-0.02, -0.1), ncols=3,
        frameon=False, fontsize=7, handlelength=1.1, columnspacing=1.0, borderaxespad=0.2, labelspacing=0.2,
    )  # fmt: skip


def _stack(axes: Axes, found: Sequence[tuple[str, Series]], start: float) -> None:
    times = sorted({time for _, one in found for time, _ in one.points})
    values = [[dict(one.points).get(time, 0.0) for time in times] for _, one in found]
    axes.stackplot(
        [(time - start) / 60 for time in times], values, labels=[name for name, _ in found],
        colors=_cycle(len(found)), alpha=0.75, linewidth=0,
    )  # fmt: skip


def _frame(axes: Axes, panel: Panel, phases: Phases, end: float) -> None:
    start = phases[0][1]
    axes.set_xlim(0, (end - start) / 60)
    top = panel.most if panel.most is not None else max(axes.get_ylim()[1], 1e-9)
    drawn = [limit for limit, _ in panel.limits[1:] if len(panel.limits) > 2]
    axes.set_ylim(0, max(top, *(1.1 * limit for limit in drawn), 1e-9))
    for limit, colour in panel.limits[1:] if drawn else ():
        axes.axhline(limit, color=_LIMITS[colour], linewidth=0.9, linestyle=(0, (5, 3)))
    for number, (name, since) in enumerate(phases):
        at = (since - start) / 60
        if number:
            axes.axvline(at, color=_FAINT, linewidth=0.7, linestyle=":")
        axes.text(at, 1.0, f" {name}", size=6, color=_FAINT, va="bottom", transform=axes.get_xaxis_transform())
    axes.yaxis.set_major_locator(MaxNLocator(_TICKS))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _formatter(panel.unit)(value)))
    axes.xaxis.set_major_locator(MaxNLocator(_TICKS if panel.width < _WIDE else 2 * _TICKS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} min"))
    axes.tick_params(length=2, colors=_FAINT, labelsize=7)
    axes.grid(color="#eceff2", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _cycle(count: int) -> list[str]:
    return [_COLOURS[number % len(_COLOURS)] for number in range(count)]


def _formatter(unit: str) -> Callable[[float], str]:
    scales: dict[str, Callable[[float], str]] = {
        "percentunit": lambda value: f"{100 * value:.4g} %",
        "s": lambda value: f"{1000 * value:.3g} ms" if abs(value) < 1 else f"{value:.3g} s",
        "bytes": _bytes,
        "Bps": lambda value: f"{_bytes(value)}/s",
        "reqps": lambda value: f"{value:.3g}/s",
        "watt": lambda value: f"{value:.3g} W",
    }
    return scales.get(unit, lambda value: f"{value:,.4g}" if value < 1000 else f"{value:,.0f}")


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} GiB"
