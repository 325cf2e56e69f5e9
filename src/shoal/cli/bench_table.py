"""How ``shoal bench`` shows what came of a load."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shoal.cli.calls import PIPE_COLUMNS
from shoal.cli.terminal import shown
from shoal.client.load.error_tally import in_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal.client.load.tally import LoadResult


def tell(result: LoadResult, settings: dict[str, Any], *, as_json: bool) -> None:
    """Prints one JSON object, or tables, with what went wrong below them."""
    summary = result.summary()
    if as_json:
        typer.echo(json.dumps({"settings": settings, **summary}))
        return
    Console().print(_table(summary))
    if steps := summary.get("pipeline", {}).get("steps"):
        # A pipe has no width of its own, and cutting names would help nobody.
        Console(width=None if Console().is_terminal else PIPE_COLUMNS).print(_steps(steps))
    for line in _reasons(summary):
        typer.echo(shown(line))


def _table(summary: dict[str, Any]) -> Table:
    told = Table(show_header=False)
    told.add_column("what")
    told.add_column("figure", justify="right")
    told.add_row("images/s", f"{summary['images_per_s']:,.1f}")
    for name, value in summary["latency_ms"].items():
        told.add_row(f"latency {name}", _figure(value, "ms"))
    for name, figure in _answers(summary):
        told.add_row(name, figure)
    told.add_row("mean send lag", _figure(summary["send_lag_ms"]["mean"], "ms"))
    told.add_row("calls by stream", _figure(summary["stream_share"] and 100 * summary["stream_share"], "%"))
    told.add_row("measured", _figure(summary["duration_s"], "s"))
    told.add_row("client CPU", _figure(summary["client_cpu_s"], "s"))
    for code, number in summary["errors"].items():
        told.add_row(f"[red]{code}", f"[red]{number:,}")
    return told


def _answers(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What answers say: of a pipeline's, the steps have a table of their own."""
    stages = summary["stage_mean_us"]
    if (pipeline := summary.get("pipeline")) is None:
        yield "mean batch size", _figure(summary["mean_batch_size"], "")
    else:
        colour = "[red]" if pipeline["lacking"] else ""
        yield "answered whole", f"{pipeline['whole']:,}"
        yield f"{colour}lack a part", f"{colour}{pipeline['lacking']:,}"
        yield "mean objects", _figure(pipeline["mean_objects"], "")
        stages = {"upload": stages["upload"]}
    for stage, mean in stages.items():
        yield f"mean {stage}", _milliseconds(mean, "ms")


def _steps(steps: list[dict[str, Any]]) -> Table:
    """A row a step; the means are of the answer that came last in each picture."""
    told = Table(caption="times in ms; p50 and p99: a picture's first call to its last answer; others: means")
    for name in ("step", "model"):
        told.add_column(name, overflow="fold")
    for name in ("calls", "failed", "p50", "p99", *steps[0]["stage_mean_us"], "batch"):
        told.add_column(name, justify="right", no_wrap=True)
    for step in steps:
        told.add_row(
            Text(shown(step["step"])),
            Text(shown(step["model"])),
            f"{step['calls']:,}",
            f"{'[red]' if step['failed'] else ''}{step['failed']:,}",
            *(_figure(value, "") for value in step["total_ms"].values()),
            *(_milliseconds(mean) for mean in step["stage_mean_us"].values()),
            _figure(step["mean_batch_size"], ""),
        )
    return told


def _reasons(summary: dict[str, Any]) -> Iterator[str]:
    for code, reason in summary["reasons"].items():
        yield f"{code}: {reason}"
    for step in summary.get("pipeline", {}).get("steps", ()):
        for line in in_words(step["codes"], step["reasons"]):
            yield f"{step['step']}: {line}"


def _milliseconds(microseconds: float | None, unit: str = "") -> str:
    return _figure(microseconds and microseconds / 1000, unit)


def _figure(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:,.2f} {unit}".strip()
