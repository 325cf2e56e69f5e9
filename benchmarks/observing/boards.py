"""The dashboards as they are written for Grafana, read the way that Grafana reads them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoal.observe import dashboards

if TYPE_CHECKING:
    from collections.abc import Mapping

WINDOW = "1m"
"""In place of ``$__rate_interval``: four scrapes of 15 s, which is what Grafana takes."""


@dataclass(frozen=True, slots=True)
class Target:
    """One query of a panel."""

    expr: str
    legend: str

    def named(self, labels: Mapping[str, str]) -> str:
        """The legend of one of its series."""
        return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), self.legend)


@dataclass(frozen=True, slots=True)
class Panel:
    """Where it lies is in units of the dashboard's grid, 24 wide."""

    title: str
    kind: str
    """``row``, ``timeseries`` or ``stat``."""
    unit: str
    x: int
    y: int
    width: int
    height: int
    stacked: bool
    limits: tuple[tuple[float, str], ...]
    """From which value on it has which colour."""
    most: float | None
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard."""

    name: str
    title: str
    panels: tuple[Panel, ...]


def boards(**variables: str) -> list[Board]:
    """All of them, with a reader's choices, such as ``service`` and ``model``, and their queries as sent."""
    names = {name.removeprefix("shoal-").removesuffix(".json"): text for name, text in dashboards.render().items()}
    return [_board(name, json.loads(text), variables) for name, text in names.items()]


def _board(name: str, document: Mapping[str, Any], variables: Mapping[str, str]) -> Board:
    flat = [inner for panel in document["panels"] for inner in (panel, *panel.get("panels", ()))]
    return Board(name, document["title"], tuple(_panel(panel, variables) for panel in flat))


def _panel(panel: Mapping[str, Any], variables: Mapping[str, str]) -> Panel:
    grid, defaults = panel["gridPos"], panel.get("fieldConfig", {}).get("defaults", {})
    custom = defaults.get("custom", {})
    steps = defaults.get("thresholds", {}).get("steps", ())
    return Panel(
        title=panel["title"],
        kind=panel["type"],
        unit=defaults.get("unit", ""),
        x=grid["x"],
        y=grid["y"],
        width=grid["w"],
        height=grid["h"],
        stacked=custom.get("stacking", {}).get("mode") == "normal",
        limits=tuple((float("-inf") if step["value"] is None else step["value"], step["color"]) for step in steps),
        most=defaults.get("max"),
        targets=tuple(Target(_chosen(it["expr"], variables), it["legendFormat"]) for it in panel.get("targets", ())),
    )


def _chosen(expression: str, variables: Mapping[str, str]) -> str:
    for name, value in {"__rate_interval": WINDOW, **variables}.items():
        expression = expression.replace(f"${name}", value)
    return expression
