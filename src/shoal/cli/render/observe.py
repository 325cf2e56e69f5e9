"""``shoal render prometheus``, ``rules`` and ``dashboards``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shoal.errors import ConfigurationError
from shoal.service.home import Home

if TYPE_CHECKING:
    from collections.abc import Mapping

_RULES = "shoal-rules.yml"


def prometheus(
    output: Annotated[Path, typer.Option(help="A folder for prometheus.yml and the rules.")],
    scrape_interval: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, max=3600, help="Between two scrapes.")
    ] = 15.0,
) -> None:
    """Write what a Prometheus on this machine needs to watch the service that runs here.

    Addresses are those of this run: write it again after the service was started anew.
    """
    from shoal.local import scrape, state  # the others need no running service
    from shoal.observe import ruleset

    home = Home.default()
    found = state.running(home)
    if found is None:
        raise ConfigurationError(f"no service runs in {home.root}; 'shoal up' starts one")
    made = scrape.configuration(found, scrape_interval, [_RULES])
    _write(output, {"prometheus.yml": ruleset.to_yaml(made), _RULES: ruleset.render()})


def rules(
    output: Annotated[Path | None, typer.Option(help="A file to write to, instead of printing.")] = None,
    runbook_base: Annotated[
        str,
        typer.Option(metavar="URL", help="Of the folder that has docs/alerts.md, for the annotation runbook_url."),
    ] = "",
) -> None:
    """Print the rules, or write them to a file for Prometheus' rule_files."""
    from shoal.observe import ruleset

    if runbook_base and not runbook_base.startswith(("http://", "https://")):
        raise ConfigurationError(f"--runbook-base {runbook_base}: must start with http:// or https://")
    text = ruleset.render(runbook_base)
    if output is None:
        typer.echo(text, nl=False)
    else:
        _write(output.parent, {output.name: text})


def dashboards(
    output: Annotated[Path, typer.Option(help="A folder, such as one that Grafana's provisioning reads.")],
) -> None:
    """Write a JSON file for each dashboard."""
    from shoal.observe.dashboards import render  # the extra may be missing

    _write(output, render())


def _write(folder: Path, files: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
        typer.echo(folder / name)
