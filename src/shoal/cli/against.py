"""``shoal simulate --against``: a trace on a running service and on the simulator, side by side."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from rich.console import Console
from rich.table import Table

from shoal.arrivals import trace as traces
from shoal.arrivals.processes import poisson
from shoal.cli.inputs import pictures
from shoal.client import AsyncClient
from shoal.client.connection import START
from shoal.client.load.generator import LoadRequest
from shoal.errors import ConfigurationError, Unavailable
from shoal.modelstore import repository
from shoal.simulate.judge import missed
from shoal.validation.beside import Served, compare

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.client.connection import Connection
    from shoal.validation.beside import Comparison
    from shoal.validation.measure import Trial

_PICTURES = 32
"""Enough that they differ; each is uploaded once."""


Against: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="Play arrivals on this running service, too, and say how far it is off."),
]
TraceFile: TypeAlias = Annotated[
    Path | None, typer.Option("--trace", metavar="FILE", help="With --against. Arrivals: CSV of time, model, owner.")
]
Rate: TypeAlias = Annotated[float | None, typer.Option(help="Poisson arrivals a second, instead of a trace.")]
Duration: TypeAlias = Annotated[float, typer.Option(help="Seconds of them that count.")]
ModelName: TypeAlias = Annotated[str, typer.Option("--model", help="The model that --rate is for.")]
Store: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The service's model store.", show_default="`models` in Shoal's home"),
]
Replicas: TypeAlias = Annotated[int, typer.Option(min=1, help="Workers that serve the models.")]
Images: TypeAlias = Annotated[Path, typer.Option(metavar="DIR", help="Pictures, sent in turn.")]
WarmUp: TypeAlias = Annotated[float, typer.Option(min=0.0, help="Seconds of arrivals before those that count.")]
Timeout: TypeAlias = Annotated[float, typer.Option(min=0.001, help="Seconds for one request.")]
Calibration: TypeAlias = Annotated[
    float, typer.Option(min=0.1, help="Seconds of each closed loop that costs are fitted to.")
]


def poisson_arrivals(model: str, rate: float, seconds: float, seed: int) -> dict[str, list[float]]:
    """Of one model."""
    times = poisson(rate, random.Random(seed))  # no secret
    return {model: list(takewhile(lambda time: time < seconds, times))}


def hold_against(
    connection: Connection,
    arrivals: Mapping[str, Sequence[float]],
    trial: Trial,
    store: Path,
    images: Path,
    *,
    as_json: bool,
) -> None:
    """Plays arrivals on a service and on the simulator, and prints how far they are apart.

    What requests cost is found first, by callers who wait for each other's answers: so the fit never sees the arrivals
    that it is judged by.
    """
    if not images.exists():
        raise ConfigurationError(f"--images {images}: no such folder")
    try:
        found = asyncio.run(_compare(connection, arrivals, trial, store, images))
    except Unavailable as error:
        raise Unavailable(f"{error}; is it up? {START}") from None
    _tell(found, as_json)


def trace_arrivals(path: Path) -> dict[str, list[float]]:
    """By model; whose a request is doesn't matter, since one key sends them all."""
    found: dict[str, list[float]] = {}
    for arrival in traces.read(path):
        found.setdefault(arrival.model, []).append(arrival.time)
    return found


async def _compare(
    connection: Connection, arrivals: Mapping[str, Sequence[float]], trial: Trial, store: Path, images: Path
) -> dict[str, Comparison]:
    configs = {name: repository.read_model(store, name) for name in arrivals}
    async with AsyncClient(connection.target, **connection.options()) as client:
        await client.connect()
        sent = [await client.upload(picture) for picture in pictures([images])[:_PICTURES]]
        models = {
            name: Served(config.batching, [LoadRequest(config.task, picture, name) for picture in sent], arrivals[name])
            for name, config in configs.items()
        }
        return await compare(client, models, trial, lambda text: typer.echo(f"shoal: {text}", err=True))


def _tell(found: Mapping[str, Comparison], as_json: bool) -> None:
    rows = {name: _record(one) for name, one in found.items()}
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for name, one in found.items():
        Console().print(_table(name, one))
        if beyond := rows[name]["missed"]:
            typer.echo(f"shoal: {name}: {', '.join(beyond)}: further apart than 5 % (p99: 10 %)", err=True)
        if one.lag > (one.measured.p50 or 0.0) / 10:
            typer.echo(f"shoal: {name}: calls left up to {1000 * one.lag:.0f} ms late: the client was busy", err=True)


def _record(one: Comparison) -> dict[str, Any]:
    apart = one.errors()
    return {
        "measured": asdict(one.measured),
        "calculated": asdict(one.calculated),
        "errors": apart,
        "missed": missed(apart),
        "lag_s": one.lag,
    }


def _table(name: str, one: Comparison) -> Table:
    shown = Table("", "service", "simulator", "error", title=name)
    measured, calculated = asdict(one.measured), asdict(one.calculated)
    for figure, error in one.errors().items():
        apart = "-" if error is None else f"{100 * error:+.1f} %"
        shown.add_row(figure.replace("_", " "), _shown(figure, measured), _shown(figure, calculated), apart)
    return shown


def _shown(figure: str, values: Mapping[str, float | None]) -> str:
    value = values[figure]
    if value is None:
        return "-"
    if figure.startswith("p"):
        return f"{1000 * value:,.1f} ms"
    if figure == "refused_share":
        return f"{100 * value:.2f} %"
    return f"{value:,.2f}" + (" /s" if figure == "throughput" else "")
