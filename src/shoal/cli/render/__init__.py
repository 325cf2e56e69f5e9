"""``shoal render``: configuration to read or to deploy, one module a kind of it.

May use: cli, errors, local, observe, observe/dashboards, router, service.
"""

from __future__ import annotations

from typing import ClassVar

import typer

from shoal.cli.lazy import Command, LazyGroup

COMMANDS = {
    "envoy": Command("shoal.cli.render.envoy:envoy", "router", "The router's, as a service file gives it."),
    "prometheus": Command("shoal.cli.render.observe:prometheus", "", "Prometheus', for the service that runs here."),
    "rules": Command("shoal.cli.render.observe:rules", "", "Prometheus' recording and alert rules."),
    "dashboards": Command("shoal.cli.render.observe:dashboards", "observe", "Grafana's dashboards."),
}


class RenderGroup(LazyGroup):
    """The commands of ``shoal render``."""

    table: ClassVar[dict[str, Command]] = COMMANDS


app = typer.Typer(cls=RenderGroup, no_args_is_help=True, add_completion=False)


@app.callback()
def render() -> None:
    """Write configuration, to read or to deploy."""
