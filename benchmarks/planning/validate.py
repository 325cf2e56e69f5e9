"""The simulator beside a real service: both get the same arrivals, and what the one said is held against the other.

python -m benchmarks.planning.validate [--quick] [--calculate | --again] [--seconds S]

The service is real but for its engines, which take as long as a curve says. The costs that the simulator is told are
those that a calibration with closed loops found; it is neither told the curve nor do the loops know the arrivals, which
are Poisson. Writes benchmarks/results/planning_validation.json.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from benchmarks.batching.options import MAX_BATCH_SIZE, measured_curve
from benchmarks.batching.replicas import Model
from benchmarks.batching.stack import Layout, running
from benchmarks.common.about import about, use_cores
from benchmarks.common.files import RESULTS, read_result, write_json
from shoal.arrivals.processes import poisson
from shoal.client.load.generator import LoadRequest
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import Task
from shoal.simulate.fit import Fit
from shoal.simulate.judge import Figures, errors, missed
from shoal.simulate.service import simulate
from shoal.validation.beside import Served, scenario
from shoal.validation.measure import Trial, by_model, calibrate, figures, play

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.batching.stack import Running

LOADS = (0.2, 0.5, 0.8, 0.95, 1.3)
MODELS = {"first": (100.0, 5), "second": (60.0, 0)}
"""Pictures a second of one engine, and milliseconds of queue delay."""
SETUPS = ((1, 1), (2, 1), (3, 1), (4, 1), (1, 2), (2, 2), (4, 2))
"""Workers, models."""
QUICK_SETUPS, QUICK_LOADS = ((1, 1),), (0.5, 1.3)
DEADLINE_SECONDS = 1.0
WARM_UP_SECONDS = 4.0
SECONDS = 10.0
CALIBRATION_SECONDS = 1.5
CALM_MS = 30.0
"""A client that is later with a call than this had to wait for a core, and so had the service."""
RESULT = RESULTS / "planning_validation.json"


@dataclass(frozen=True)
class Setup:
    """What is served, and by how many workers."""

    workers: int
    models: Mapping[str, Model]
    rates: Mapping[str, float]
    """Pictures a second of all workers with full batches."""

    @classmethod
    def of(cls, workers: int, models: int) -> Setup:
        """The first so many of the models."""
        chosen = dict(list(MODELS.items())[:models])
        served = {
            name: Model(
                BatchingSettings(max_batch_size=MAX_BATCH_SIZE, max_queue_delay_microseconds=1000 * delay_ms),
                measured_curve().scaled(MAX_BATCH_SIZE, capacity),
            )
            for name, (capacity, delay_ms) in chosen.items()
        }
        return cls(workers, served, {name: workers * capacity for name, (capacity, _) in chosen.items()})

    def arrivals(self, load: float, until: float) -> dict[str, list[float]]:
        """Poisson, at that share of what each model's engines carry; others for each setup, load and model."""
        return {
            name: list(
                takewhile(
                    lambda time: time < until,
                    poisson(load * rate, random.Random(f"{name} {self.workers} {load}")),  # no secret
                )
            )
            for name, rate in self.rates.items()
        }

    def served(self, load: float, until: float) -> dict[str, Served]:
        """Its models with these arrivals; nobody fetches the pictures."""
        return {
            name: Served(self.models[name].settings, [request(name)], times)
            for name, times in self.arrivals(load, until).items()
        }

    @property
    def trial(self) -> Trial:
        """Each model has an engine of its own."""
        return Trial(self.workers, WARM_UP_SECONDS, DEADLINE_SECONDS, CALIBRATION_SECONDS, devices="own")


def request(model: str) -> LoadRequest:
    """For a picture that nobody fetches."""
    return LoadRequest(Task.CLASSIFICATION, str(uuid4()), model)


def main() -> None:
    """Measures, calculates, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one worker, two loads; writes nothing")
    parser.add_argument(
        "--calculate", action="store_true", help="measure nothing: hold the last result against today's"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each window")
    parser.add_argument("--again", action="store_true", help="measure the disturbed points of the last result again")
    options = parser.parse_args()
    if options.calculate or options.again:
        result = read_result(RESULT.stem)
        for setup in result["setups"] if options.again else ():
            asyncio.run(_again(setup, result["settings"]["seconds"]))
            write_json(RESULT, result)
    else:
        use_cores()
        started = {**about(), "load_average": round(os.getloadavg()[0], 2)}
        result = {**started, "settings": _settings(options.seconds), "setups": []}
        for workers, models in QUICK_SETUPS if options.quick else SETUPS:
            loads = QUICK_LOADS if options.quick else LOADS
            result["setups"].append(asyncio.run(_measure(workers, models, loads, options.seconds)))
            if not options.quick:
                write_json(RESULT, result)
    for setup in result["setups"]:
        calculate(setup, WARM_UP_SECONDS + result["settings"]["seconds"])
    if not options.quick:
        write_json(RESULT, result)


def _settings(seconds: float) -> dict[str, Any]:
    return {
        "models": {name: {"capacity_per_s": rate, "delay_ms": delay} for name, (rate, delay) in MODELS.items()},
        "max_batch_size": MAX_BATCH_SIZE,
        "deadline_s": DEADLINE_SECONDS,
        "warm_up_s": WARM_UP_SECONDS,
        "seconds": seconds,
        "calibration_s": CALIBRATION_SECONDS,
        "calm_ms": CALM_MS,
    }


async def _measure(workers: int, models: int, loads: Sequence[float], seconds: float) -> dict[str, Any]:
    """What calibration found, and a row a load and model."""
    setup, rows = Setup.of(workers, models), []
    async with running(Layout(setup.models, workers)) as service:
        fits = await _calibrate(service, setup)
        for load in loads:
            rows += await _point(service, setup, load, WARM_UP_SECONDS + seconds)
    return {
        "workers": workers,
        "models": models,
        "fits": {name: each.figures() for name, each in fits.items()},
        "rows": rows,
    }


async def _again(measured: dict[str, Any], seconds: float) -> None:
    """Puts calmer rows in place of disturbed ones; whether a row was calm is told by the client's lag alone."""
    disturbed = sorted({row["load"] for row in measured["rows"] if row["lag_max_ms"] > CALM_MS})
    if not disturbed:
        return
    setup = Setup.of(measured["workers"], measured["models"])
    async with running(Layout(setup.models, setup.workers)) as service:
        await _calibrate(service, setup)  # the policy learns by it, as it did before the other rows
        for load in disturbed:
            rows = await _point(service, setup, load, WARM_UP_SECONDS + seconds)
            old = [row for row in measured["rows"] if row["load"] == load]
            if max(row["lag_max_ms"] for row in rows) < max(row["lag_max_ms"] for row in old):
                measured["rows"] = [row for row in measured["rows"] if row["load"] != load] + rows
    measured["rows"].sort(key=lambda row: (row["load"], row["model"]))


async def _calibrate(service: Running, setup: Setup) -> dict[str, Fit]:
    async with service.client() as client:
        return {
            name: await calibrate(client, [request(name)], model.settings, setup.trial)
            for name, model in setup.models.items()
        }


async def _point(service: Running, setup: Setup, load: float, until: float) -> list[dict[str, Any]]:
    async with service.client() as client:
        requests = {name: [request(name)] for name in setup.models}
        replies = await play(client, requests, setup.arrivals(load, until), DEADLINE_SECONDS)
    rows = [
        {
            "model": name,
            "load": load,
            "measured": rounded(asdict(figures(of, WARM_UP_SECONDS, until))),
            "lag_max_ms": round(1000 * max(reply.lag for reply in of), 1),
            "codes": dict(Counter(reply.code.name for reply in of)),
        }
        for name, of in by_model(replies).items()
    ]
    print(setup.workers, len(setup.models), rows, flush=True)
    return rows


def calculate(measured: dict[str, Any], until: float) -> None:
    """Puts beside each measured row of a setup what the simulator says, and by how much it is off."""
    setup = Setup.of(measured["workers"], measured["models"])
    fits = {name: Fit.parse(told) for name, told in measured["fits"].items()}
    for row in measured["rows"]:
        told = scenario(setup.served(row["load"], until), fits, setup.trial, until)
        said = Figures.calculated(simulate(told).models[row["model"]])
        found = errors(Figures(**row["measured"]), said)
        row |= {"calculated": rounded(asdict(said)), "errors": rounded(found), "missed": missed(found)}
        print(f"{setup.workers} workers, {row['model']} of {len(setup.models)}, {line(row)}", flush=True)


def rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """To what is worth keeping."""
    return {name: None if value is None else round(value, 5) for name, value in values.items()}


def line(row: Mapping[str, Any]) -> str:
    """One row to look at: the measured figures, and by how many percent the calculated ones are off."""
    shown = " ".join(
        f"{name} {row['measured'][name]:.4g} ({100 * error:+.1f} %)"
        for name, error in row["errors"].items()
        if error is not None
    )
    return f"load {row['load']}: {shown}; lag {row['lag_max_ms']} ms"


if __name__ == "__main__":
    main()
