"""``shoal simulate``: what a scenario comes to, under virtual time."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

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
from shoal.cli.calls import DEFAULT_MODELS, ApiKey, Ca, TokenFile
from shoal.cli.simulated import how_sampled, models, pools, record, sampled_models, sampled_record
from shoal.cli.stages import Stages
from shoal.client.connection import find_connection
from shoal.errors import ConfigurationError
from shoal.modelconfig.model import Task
from shoal.service.home import Home
from shoal.simulate.from_file import read
from shoal.simulate.parts import MOST_REQUESTS, is_large, share_for
from shoal.simulate.sample import PARTS, sample
from shoal.simulate.service import simulate as run
from shoal.simulate.stages import read as read_stages
from shoal.validation.measure import Trial

if TYPE_CHECKING:
    from shoal.simulate.scenario import Scenario

_PIPE_COLUMNS = 160


def simulate(
    scenario: Annotated[Path | None, typer.Argument(metavar="SCENARIO.yaml", show_default=False)] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of chance.", show_default="that of the file")] = None,
    parts: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=64,
            help="Simulate so many parts of the service in place of all of it. 0: all of it.",
            show_default=f"0; {PARTS} where more than {MOST_REQUESTS // 10**6} million requests come",
        ),
    ] = None,
    share: Annotated[
        str | None,
        typer.Option(help="Of the service, in a part: 1/50, 0.02.", show_default="what takes some minutes"),
    ] = None,
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
    token_file: TokenFile = None,
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

    A service too large for that is sampled: some parts of it are simulated, and the printed result says so.

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
        connection = find_connection(against, api_key, Home.default(), ca, token_file)
        trial = Trial(replicas, warm_up, timeout, calibration)
        hold_against(connection, arrivals, trial, store or Home.default().models, images, as_json=as_json)
    elif scenario is not None:
        _simulate(read(scenario, seed, read_stages(stages) if stages else None), parts, share, as_json=as_json)


def _simulate(told: Scenario, parts: int | None, share: str | None, *, as_json: bool) -> None:
    began = process_time()
    if (chosen := _parts(told, parts, share)) is None:
        outcome = run(told)
        tables, of, shown = [models(outcome), pools(outcome)], "", record(told, outcome) if as_json else {}
    else:
        found = sample(told, chosen[1], chosen[0])
        outcome = found.outcome
        tables, of = [sampled_models(found), pools(outcome)], how_sampled(told, found)
        shown = sampled_record(told, found) if as_json else {}
    seconds = process_time() - began
    if as_json:
        typer.echo(json.dumps(shown, indent=2))
        return
    Console(width=None if Console().is_terminal else _PIPE_COLUMNS, highlight=False).print(*tables)
    if of:
        typer.echo(of)
    requests = sum(model.offered for model in outcome.models.values())
    typer.echo(
        f"calculated, not measured: {requests:,} requests and {outcome.events:,} events in {seconds:.1f} s of CPU"
    )


def _parts(scenario: Scenario, parts: int | None, share: str | None) -> tuple[int, Fraction] | None:
    """How many are simulated, and of what share; None: all of it."""
    if parts == 0 or (parts is None and share is None and not is_large(scenario, PARTS)):
        return None
    number = parts or PARTS
    if share is None:
        return number, share_for(scenario, number)
    try:
        return number, Fraction(share)
    except (ValueError, ZeroDivisionError):
        raise ConfigurationError(f"--share {share}: expected a part of 1, such as 1/50 or 0.02") from None
