"""A plan as a page: one HTML file with nothing outside itself, and its figures for programs."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from shoal.client.report import PAGE, prepare
from shoal.client.report.page import section, table, whole
from shoal.client.report.plots import svg
from shoal.plan.figures import figures
from shoal.runtime.files import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from shoal.plan.planning import Plan

DATA = "plan.json"
_COLOURS = ("#3b82c4", "#d97f1d", "#5aa469", "#b0567d", "#c9b458", "#6b7280")

__all__ = ["prepare", "write"]


def write(folder: Path, plan: Plan, answers: Sequence[tuple[str, str]]) -> Path:
    """Writes the page and ``plan.json``; answers the page's path.

    Args:
        folder: See ``prepare``.
        plan: What was found.
        answers: Questions and their answers.

    Raises:
        OSError: the disk is full, say.
    """
    made = figures(plan)
    replace_file(folder / DATA, json.dumps(made, indent=1) + "\n", mode=None)
    replace_file(folder / PAGE, whole("Plan", _parts(made, answers)), mode=None)
    return folder / PAGE


def _parts(made: dict[str, Any], answers: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield f"<h1>{escape(', '.join(made['models']))}</h1>"
    yield f'<p class="how">{escape(_headline(made))}</p>'
    yield section("GPUs", "Simulated, beside the arithmetic bound.", svg(lambda axes: needs(axes, made["placements"])))
    yield section("Placements", "p99 in ms, of each model.", _table(made))
    yield section("The day", "GPUs by arithmetic, and by the timetable.", svg(lambda axes: day(axes, made)))
    for asked, answer in answers:
        yield section(asked, "", f"<p>{escape(answer)}</p>")


def needs(axes: Axes, placements: Sequence[dict[str, Any]]) -> None:
    """A bar a placement; a line where the bound is."""
    shown = [one for one in placements if one["needed"]]
    names = [one["name"] for one in shown]
    axes.barh(names, [sum(one["needed"]["gpus"].values()) for one in shown], color=_COLOURS[0])
    axes.plot([one["bound"] for one in shown], names, "|", markersize=16, color=_COLOURS[1], label="bound")
    axes.invert_yaxis()
    axes.set(xlabel="GPUs")
    axes.legend()


def day(axes: Axes, made: dict[str, Any]) -> None:
    """Steps of an hour each."""
    hours = range(len(made["bound"]["by_hour"]))
    axes.step(hours, made["bound"]["by_hour"], where="post", color=_COLOURS[1], label="bound")
    for one in made["placements"]:
        if one["gpus_by_hour"]:
            axes.step(hours, one["gpus_by_hour"], where="post", color=_COLOURS[0], label=one["name"])
    axes.set_ylim(bottom=0)
    axes.set(xlabel="hour", ylabel="GPUs")
    axes.legend()


def _headline(made: dict[str, Any]) -> str:
    if made["gpus"] is None:
        return "No placement keeps the objectives."
    return f"{made['chosen']}: {made['gpus']} GPUs, the loss of one server at the peak included."


def _table(made: dict[str, Any]) -> str:
    rows = [
        (
            one["name"],
            str(one["bound"]),
            *(_trial(one[name]) for name in ("needed", "given", "server_lost", "surviving")),
            "-" if one["cost_a_day"] is None else f"{one['cost_a_day']:,.0f}",
        )
        for one in made["placements"]
    ]
    head = ("placement", "bound", "fewest", "on what there is", "a server lost", "fewest with a server lost", "a day")
    return table(head, rows)


def _trial(trial: dict[str, Any] | None) -> str:
    if trial is None:
        return "-"
    told = ", ".join("-" if one["p99_ms"] is None else f"{one['p99_ms']:,.1f}" for one in trial["models"].values())
    return f"{sum(trial['gpus'].values())} GPUs: {told} ms"
