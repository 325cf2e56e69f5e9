"""What batching before the load balancer brings, from 1 to 1,000 replicas: batches, and GPUs for a load.

python -m benchmarks.planning.growth [STEP ...]

Steps are replicas and gpus. Calculated: no GPU is needed. 10 minutes of one core. Writes
benchmarks/results/planning_growth.json, step by step.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from benchmarks.batching.options import measured_curve
from benchmarks.common.about import about
from benchmarks.common.files import RESULTS, read_json, write_json
from benchmarks.common.options import add_names
from shoal.modelconfig.batching import BatchingSettings
from shoal.runtime.percentile import percentile
from shoal.simulate.scenario import Load, Scenario, SimulatedModel, SimulatedPool
from shoal.simulate.service import simulate
from shoal.simulate.spreads import Constant
from shoal.simulate.times import Steady

if TYPE_CHECKING:
    from collections.abc import Callable

RESULT: Final = RESULTS / "planning_growth.json"
LARGEST: Final = 16
CAPACITY: Final = 400.0
"""Pictures a second of a replica with full batches, as in the measurements of docs/batching.md."""
CURVE: Final = measured_curve().scaled(LARGEST, CAPACITY)
DELAY, OBJECTIVE, TIMEOUT = 0.02, 0.1, 1.0
"""Seconds."""
RESERVE: Final = 0.95
"""Of the objective, until which a batch is to be answered: docs/batching.md."""
GROWING_LOAD: Final = 0.4
"""Of the capacity of all replicas."""
FIXED_LOAD: Final = 0.8
"""Of the capacity of one."""
REPLICAS: Final = (1, 3, 10, 30, 100, 300, 1000)
LOADS: Final = (1, 10, 100)
"""Of which each is what ``FIXED_LOAD`` of one replica is."""
REQUESTS: Final = (16_000, 400_000)
"""At least and at most; between them, those of ``SECONDS``."""
SECONDS, WARM_UP = 3.0, 0.3
EXACT: Final = 0.01
"""Of the number of GPUs: a search goes no further."""
MOST_LOST: Final = 0.001


@dataclass(frozen=True)
class Way:
    """Where batches are made, and when they close."""

    balancing: str
    settings: BatchingSettings
    patience: float
    """Seconds for which a batch's first request waits for company, at most."""

    @property
    def in_front(self) -> bool:
        """Whether one queue has all requests."""
        return self.balancing == "permits"


_DELAY = (BatchingSettings(LARGEST, max_queue_delay_microseconds=int(1e6 * DELAY)), DELAY)
_OBJECTIVE = (
    BatchingSettings(LARGEST, latency_objective_microseconds=int(1e6 * OBJECTIVE)),
    RESERVE * OBJECTIVE - CURVE.seconds(1),
)
WAYS: Final = {
    "in each, at random, delay": Way("random", *_DELAY),
    "in each, round robin, delay": Way("round_robin", *_DELAY),
    "in each, round robin, deferred": Way("round_robin", *_OBJECTIVE),
    "in front, delay": Way("permits", *_DELAY),
    "in front, deferred": Way("permits", *_OBJECTIVE),
}


def main() -> None:
    """Calculates and writes the steps."""
    steps: dict[str, Callable[[], Any]] = {"replicas": by_replicas, "gpus": by_load}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_names(parser, "step", steps)
    result = read_json(RESULT) or {}
    for step in parser.parse_args().steps:
        result[step] = {**about(), "rows": steps[step]()}
        write_json(RESULT, result)


def by_replicas() -> list[dict[str, Any]]:
    """A row a way and number of replicas, with a load that grows with them, and with one that doesn't."""
    rows = []
    for replicas in REPLICAS:
        for setting, rate in (("growing", GROWING_LOAD * CAPACITY * replicas), ("fixed", FIXED_LOAD * CAPACITY)):
            for name, way in WAYS.items():
                row = {"load": setting, "replicas": replicas, "way": name, "theory": theory(way, replicas, rate)}
                rows.append(row | calculate(way, replicas, rate))
                print(rows[-1], flush=True)
    return rows


def theory(way: Way, replicas: int, rate: float) -> float:
    """The mean batch if nothing but company counts: the first request, and all that come to its queue while it waits.

    A replica that couldn't carry its load so is never idle, and its batches grow until it can.
    """
    company = 1 + rate / (1 if way.in_front else replicas) * way.patience
    each = rate / replicas
    carried = each * CURVE.base / (1 - each * CURVE.slope)
    return round(min(LARGEST, max(company, carried)), 2)


def calculate(way: Way, replicas: int, rate: float) -> dict[str, Any]:
    """What comes of it."""
    least, most = (requests / rate for requests in REQUESTS)
    seconds = min(max(SECONDS, least), most)
    model = SimulatedModel("model", way.settings, CURVE, Constant())
    load = Load("model", Steady(rate, 1.0, "1"), timeout=TIMEOUT)
    pool = SimulatedPool("gpus", ("model",), replicas)
    told = Scenario([model], [pool], [load], seconds, WARM_UP * seconds, balancing=way.balancing)
    outcome = simulate(told)
    came = outcome.models["model"]
    p99 = percentile(came.latencies, 0.99)
    return {
        "mean_batch_size": round(came.mean_batch_size, 2),
        "busy_gpus": round(outcome.utilisation["gpus"] * replicas, 3),
        "p99_ms": None if p99 is None else round(1000 * p99, 1),
        "lost": round(1 - came.answered / came.offered, 5),
    }


def by_load() -> list[dict[str, Any]]:
    """A row a way and load: the fewest GPUs whose p99 keeps the objective, to a hundredth."""
    rows: list[dict[str, Any]] = []
    for times in LOADS:
        rate = times * FIXED_LOAD * CAPACITY
        for name, way in WAYS.items():
            smaller = next((row["gpus"] / row["load"] for row in reversed(rows) if row["way"] == name), None)
            row = {"load": times, "per_s": rate, "way": name, "bound": math.ceil(rate / CAPACITY)}
            rows.append(row | fewest(way, rate, smaller and math.ceil(smaller * times)))
            print(rows[-1], flush=True)
    return rows


def fewest(way: Way, rate: float, guess: int | None) -> dict[str, Any]:
    """From ``guess``, or the bound, upwards to what is enough; from there down, then by bisection."""
    low = math.ceil(rate / CAPACITY) - 1
    high = guess or low + 1
    while not _kept(found := calculate(way, high, rate)):
        low, high = high, math.ceil(high * (1 + EXACT if guess else 2))
    step = max(1, int(EXACT * high))
    while high - step > low and guess:
        tried = calculate(way, high - step, rate)
        if not _kept(tried):
            low = high - step
        else:
            high, found, step = high - step, tried, 2 * step
    while high - low > max(1, EXACT * high):
        middle = (low + high) // 2
        tried = calculate(way, middle, rate)
        if _kept(tried):
            high, found = middle, tried
        else:
            low = middle
    return {"gpus": high, **found}


def _kept(found: dict[str, Any]) -> bool:
    return found["p99_ms"] is not None and found["p99_ms"] <= 1000 * OBJECTIVE and found["lost"] <= MOST_LOST


if __name__ == "__main__":
    main()
