"""``shoal simulate``: what a scenario comes to, under virtual time."""

from __future__ import annotations

import json
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from shoal.cli.against import (
    Against,
    Calibration,
    Duration,
    Images,
    ModelName,
    Rate,
    Replicas,
    Store,
    Timeout,
    TraceFile,
    WarmUp,
    hold_against,
    poisson_arrivals,
    trace_arrivals,
)
from shoal.cli.bench import SAMPLES
from shoal.cli.calls import DEFAULT_MODELS, ApiKey, Ca
from shoal.cli.stages import Stages
from shoal.client.connection import find_connection
from shoal.errors import ConfigurationError
from shoal.modelconfig.model import Task
from shoal.runtime.percentile import percentile
from shoal.service.home import Home
from shoal.simulate.from_file import read
from shoal.simulate.service import simulate as run
from shoal.simulate.stages import read as read_stages
from shoal.validation.measure import Trial

if TYPE_CHECKING:
    from shoal.simulate.scenario import ModelOutcome, Outcome, Scenario

_PIPE_COLUMNS = 160
_COLUMNS = ("model", "requests", "answers/s", "batch", "p50, ms", "p95, ms", "p99, ms", "refused", "late", "failed")


def simulate(
    scenario: Annotated[Path | None, typer.Argument(metavar="SCENARIO.yaml", show_default=False)] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of chance.", show_default="that of the file")] = None,
    stages: Stages = None,
    against: Against = None,
    trace: TraceFile = None,
    rate: Rate = None,
    duration: Duration = 20.0,
    model: ModelName = DEFAULT_MODELS[Task.CLASSIFICATION],
    store: Store = None,
    replicas: Replicas = 1,
    images: Images = SAMPLES,
    warm_up: WarmUp = 4.0,
    timeout: Timeout = 1.0,
    calibration: Calibration = 2.0,
    api_key: ApiKey = None,
    ca: Ca = None,
) -> None:
    r"""Calculate how a service would do: the real batching policy under virtual time, with measured costs.

    The file, whose other keys docs/simulate.md lists:

    \b
    seconds: 60
    models:
      resnet50:
        profile: profile/resnet50/profile.json   # or batch_ms: {1: 2.5, 8: 4}
        prepare: {p50_ms: 3, p99_ms: 20}
        batching: {max_batch_size: 8, latency_objective_ms: 100}
    pools:
      gpus: {models: [resnet50], replicas: 4}
    loads:
      - {model: resnet50, per_s: 2000}
    faults:
      - {kind: replica, target: gpus-0, at: 20, until: 30}

    With --against it is told no costs: it finds them by calls to that service, plays the arrivals on both, and prints
    how far they are apart. Nothing else should load the service meanwhile.
    """
    if stages and against is not None:
        raise ConfigurationError("--stages goes with SCENARIO.yaml; --against finds the costs by calls of its own")
    if (scenario is None) == (against is None):
        raise ConfigurationError("what is simulated? expected either SCENARIO.yaml or --against HOST:PORT")
    if against is not None:
        if (trace is None) == (rate is None):
            raise ConfigurationError("arrivals: expected either --trace FILE or --rate R")
        poisson = poisson_arrivals(model, rate, warm_up + duration, seed or 1) if rate is not None else {}
        arrivals = poisson if trace is None else trace_arrivals(trace)
        connection = find_connection(against, api_key, Home.default(), ca)
        trial = Trial(replicas, warm_up, timeout, calibration)
        hold_against(connection, arrivals, trial, store or Home.default().models, images, as_json=as_json)
    elif scenario is not None:
        _simulate(read(scenario, seed, read_stages(stages) if stages else None), as_json)


def _simulate(told: Scenario, as_json: bool) -> None:
    began = process_time()
    outcome = run(told)
    seconds = process_time() - began
    if as_json:
        typer.echo(json.dumps(record(told, outcome), indent=2))
        return
    console = Console(width=None if Console().is_terminal else _PIPE_COLUMNS, highlight=False)
    console.print(_models(outcome), _pools(outcome))
    requests = sum(model.offered for model in outcome.models.values())
    typer.echo(
        f"calculated, not measured: {requests:,} requests and {outcome.events:,} events in {seconds:.1f} s of CPU"
    )


def record(scenario: Scenario, outcome: Outcome) -> dict[str, Any]:
    """All of it, ready for JSON; the same for the same file and seed."""
    return {
        "seed": scenario.seed,
        "seconds": scenario.seconds,
        "warm_up_seconds": scenario.warm_up,
        "balancing": scenario.balancing,
        "models": {name: _figures(model) for name, model in outcome.models.items()},
        "pools": {
            pool: {"utilisation": used, "replica_seconds": outcome.replica_seconds[pool]}
            for pool, used in outcome.utilisation.items()
        },
        "events": outcome.events,
    }


def _figures(model: ModelOutcome) -> dict[str, Any]:
    return {
        "offered": model.offered,
        "answered": model.answered,
        "refused": model.refused,
        "late": model.late,
        "failed": model.failed,
        "throughput_per_s": model.throughput,
        "mean_batch_size": model.mean_batch_size,
        **{f"p{name}_ms": _milliseconds(model, share) for name, share in (("50", 0.5), ("95", 0.95), ("99", 0.99))},
        "owners": {owner: {"offered": each[0], "answered": each[1]} for owner, each in model.owners.items()},
    }


def _milliseconds(model: ModelOutcome, share: float) -> float | None:
    found = percentile(model.latencies, share)
    return None if found is None else 1000 * found


def _models(outcome: Outcome) -> Table:
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in _COLUMNS:
        shown.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
    for name, model in outcome.models.items():
        times = [_milliseconds(model, share) for share in (0.5, 0.95, 0.99)]
        shown.add_row(
            name,
            f"{model.offered:,}",
            f"{model.throughput:,.1f}",
            f"{model.mean_batch_size:.2f}",
            *("-" if time is None else f"{time:,.2f}" for time in times),
            *(f"{count:,}" for count in (model.refused, model.late, model.failed)),
        )
    return shown


def _pools(outcome: Outcome) -> Table:
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("pool", "utilisation", "replica hours"):
        shown.add_column(name, justify="left" if name == "pool" else "right", no_wrap=True)
    for pool, used in outcome.utilisation.items():
        shown.add_row(pool, f"{100 * used:.1f} %", f"{outcome.replica_seconds[pool] / 3600:,.3f}")
    return shown
