"""``shoal bench --find-rate``: the probes on the real service, and what is told of them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table

from shoal.client.load.find_rate import RateSearch
from shoal.client.load.objective import Objective, Probe
from shoal.client.load.processes import busy_generator
from shoal.errors import Code, Overloaded, ShoalError, from_status
from shoal.runtime.percentile import percentile

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.cli.bench_ways import Fleet
    from shoal.client.load.fleet import LoadJob
    from shoal.client.load.generator import LoadSettings
    from shoal.client.load.tally import LoadResult

    Measure = Callable[[LoadJob, int], LoadResult]

_SINGLE_SECONDS = 2.0
_REST_SECONDS = 0.5
_REST_TRIES = 60
_MILLISECONDS = 1000


class _Service:
    """A running service, as the search sees it."""

    def __init__(self, job: LoadJob, fleet: Fleet, objective: Objective, measure: Measure) -> None:
        self._job = job
        self._fleet = fleet
        self._objective = objective
        self._measure = measure
        self.single_seconds = 0.0

    def single(self, seconds: float = _SINGLE_SECONDS) -> float:
        """The median of one caller's requests, in seconds.

        Raises:
            ShoalError: none was answered: what one was told.
        """
        settings = replace(self._job.settings, concurrency=1, rate=None, duration_seconds=seconds, warm_up_seconds=0.0)
        result = self._run(settings, 1)
        median = percentile(sorted(result.latencies), 0.5)
        if median is None:
            code, reason = next(iter(result.failed.reasons.items()))
            raise from_status(Code[code], f"no request was answered: {code}: {reason}")
        return median

    def probe(self, rate: float, seconds: float) -> Probe:
        """Offers a rate once the queues of the load before are empty."""
        self._rest()
        settings = replace(self._job.settings, rate=rate, duration_seconds=seconds)
        processes = self._fleet.processes(settings)
        result = self._run(settings, processes)
        found = Probe.of(rate, result, self._objective, busy_generator(result, processes, rate))
        told = f"{found.late:,} of {found.requests:,} requests late: {'kept' if found.kept else 'missed'}"
        typer.echo(f"shoal: {rate:,.1f} requests/s for {found.seconds:,.0f} s: {told}", err=True)
        return found

    def _rest(self) -> None:
        """Waits until a single request takes about what it took before all load.

        Raises:
            Overloaded: it never does.
        """
        found = 0.0
        for _ in range(_REST_TRIES):
            found = self.single(_REST_SECONDS)
            if found <= 2 * self.single_seconds or found < self._objective.seconds / 10:
                return
        raise Overloaded(
            f"the service doesn't come to rest: one request takes {found * _MILLISECONDS:.1f} ms, and took"
            f" {self.single_seconds * _MILLISECONDS:.1f} ms at first: is it under somebody else's load?"
        )

    def _run(self, settings: LoadSettings, processes: int) -> LoadResult:
        result = self._measure(replace(self._job, settings=settings), processes)
        if result.interrupted:
            raise KeyboardInterrupt
        return result


def tell_rate(
    job: LoadJob, fleet: Fleet, objective: Objective, measure: Measure, told: dict[str, Any], *, as_json: bool
) -> int:
    """Searches, and prints what it found; Ctrl-C prints what there is.

    Returns:
        The exit code: 0, if a rate is known to keep the objective.

    Raises:
        ShoalError: no rate keeps it, or the service fails; after what is known was printed.
    """
    service = _Service(job, fleet, objective, measure)
    search = RateSearch(service.probe, objective, job.settings.duration_seconds)
    failure: ShoalError | None = None
    try:
        service.single_seconds = service.single()
        search.run(service.single_seconds)
    except KeyboardInterrupt:
        typer.echo("shoal: interrupted: this is what is known so far", err=True)
    except ShoalError as error:
        failure = error
    if search.probes or failure is None:
        _tell(search, service.single_seconds, told, as_json)
    if failure is not None:
        raise failure
    return 0 if search.best else 1


def _tell(search: RateSearch, single_seconds: float, told: dict[str, Any], as_json: bool) -> None:
    best = search.best
    if as_json:
        typer.echo(json.dumps({"settings": told, **_summary(search, single_seconds)}))
        return
    Console().print(_table(search))
    objective = f"{_quantile(search.objective)} of {search.objective.seconds * _MILLISECONDS:g} ms"
    if best is None:
        typer.echo(f"no rate is known to keep a {objective}")
        return
    sure = "confirmed by a longer run" if search.confirmed else "not confirmed by a longer run yet"
    typer.echo(f"highest rate that keeps a {objective}: {best.rate:,.1f} requests/s ({sure})")
    typer.echo(f"one request alone: {single_seconds * _MILLISECONDS:.1f} ms in the median")
    if limit := next((probe.limit for probe in reversed(search.probes) if probe.limit), None):
        typer.echo(f"shoal: this may be the load generator's limit: {limit}", err=True)


def _summary(search: RateSearch, single_seconds: float) -> dict[str, Any]:
    best = search.best
    return {
        "rate_per_s": None if best is None else round(best.rate, 2),
        "confirmed": search.confirmed,
        "latency_slo_ms": search.objective.seconds * _MILLISECONDS,
        "quantile": search.objective.quantile,
        "single_ms": round(single_seconds * _MILLISECONDS, 3),
        "fewest_requests": search.objective.fewest_requests,
        "probes": [_probe(probe) for probe in search.probes],
    }


def _probe(probe: Probe) -> dict[str, Any]:
    told = asdict(probe)
    latency = told.pop("latency")
    return told | {"latency_ms": None if latency is None else round(latency * _MILLISECONDS, 3)}


def _table(search: RateSearch) -> Table:
    shown = Table()
    for name in ("requests/s", "seconds", "requests", "late", "failed", _quantile(search.objective), "objective"):
        shown.add_column(name, justify="right")
    for probe in search.probes:
        shown.add_row(
            f"{probe.rate:,.1f}",
            f"{probe.seconds:,.1f}",
            f"{probe.requests:,}",
            f"{probe.late:,}",
            f"{probe.failed:,}",
            "-" if probe.latency is None else f"{probe.latency * _MILLISECONDS:,.1f} ms",
            ("kept" if probe.kept else "[red]missed") + ("*" if probe.limit else ""),
        )
    return shown


def _quantile(objective: Objective) -> str:
    return f"p{100 * objective.quantile:g}"
