"""How far one machine's simulation carries: its rate, what a sample of parts is off by, and 1,000 GPUs for a minute.

python -m benchmarks.planning.scale [STEP ...]

Steps are rate, error, large. Calculated: no GPU is needed. 15 minutes of one core. Writes
benchmarks/results/planning_scale.json, step by step.
"""

from __future__ import annotations

import argparse
import resource
from dataclasses import asdict, replace
from fractions import Fraction
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, Final

from benchmarks.common.about import about
from benchmarks.common.files import RESULTS, read_json, write_json
from benchmarks.common.options import add_names
from shoal.modelconfig.batching import BatchingSettings
from shoal.simulate.costs import of_times
from shoal.simulate.judge import Figures, errors
from shoal.simulate.parts import share_for
from shoal.simulate.sample import PARTS, sample
from shoal.simulate.scenario import Load, Scenario, SimulatedModel, SimulatedPool
from shoal.simulate.service import simulate
from shoal.simulate.spreads import Constant
from shoal.simulate.times import Steady

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.simulate.sample import Sample

RESULT: Final = RESULTS / "planning_scale.json"
LARGEST_BATCH: Final = 32
COSTS: Final = of_times({1: 2.5, 8: 4, LARGEST_BATCH: 11}, {})
"""2,909 pictures a second of a GPU with full batches."""
PREPARE_SECONDS: Final = 0.002
WAYS: Final = {
    "at once": BatchingSettings(LARGEST_BATCH),
    "delay 5 ms": BatchingSettings(LARGEST_BATCH, max_queue_delay_microseconds=5_000),
    "objective 50 ms": BatchingSettings(LARGEST_BATCH, latency_objective_microseconds=50_000),
}
RATED: Final = (("delay 5 ms", 0.8), ("objective 50 ms", 0.8), ("at once", 0.8), ("at once", 0.3), ("at once", 1.2))
RATED_REQUESTS, RATED_RUNS = 30_000, 3
GPUS: Final = 64
COMPARED: Final = (*RATED[:2], ("at once", 0.95), ("at once", 0.3), ("at once", 1.2))
COMPARED_SECONDS: Final = 1.0
SHARES: Final = (Fraction(1, 4), Fraction(1, 8))
LARGE_GPUS, LARGE_RATE, LARGE_SECONDS = 1000, 1_000_000.0, 60.0


def main() -> None:
    """Calculates and writes the steps."""
    steps: dict[str, Callable[[], Any]] = {"rate": rate, "error": error, "large": large}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_names(parser, "step", steps)
    result = read_json(RESULT) or {}
    for step in parser.parse_args().steps:
        result[step] = {**about(), "rows": steps[step]()}
        write_json(RESULT, result)


def scenario(gpus: int, per_s: float, seconds: float, way: str) -> Scenario:
    """One model on so many GPUs."""
    return Scenario(
        [SimulatedModel("model", WAYS[way], COSTS, Constant(PREPARE_SECONDS))],
        [SimulatedPool("gpus", ("model",), gpus)],
        [Load("model", Steady(per_s, 1.0, "1"), timeout=1.0)],
        seconds,
        seconds / 5,
    )


def at_load(gpus: int, load: float, seconds: float, way: str) -> Scenario:
    """``load`` is a share of what full batches carry."""
    return scenario(gpus, gpus * load * COSTS.rate(LARGEST_BATCH, 1), seconds, way)


def rate() -> list[dict[str, Any]]:
    """Requests and events a CPU second of the exact simulation; the best of some runs, as others share the core."""
    rows = []
    for gpus in (4, GPUS):
        for way, load in RATED:
            told = at_load(gpus, load, RATED_REQUESTS / (gpus * load * COSTS.rate(LARGEST_BATCH, 1)), way)
            runs = [_rate(told) for _ in range(RATED_RUNS)]
            best = max(runs, key=lambda row: row["requests_per_cpu_s"])
            rows.append({"gpus": gpus, "way": way, "load": load, **best})
            print(rows[-1], flush=True)
    return rows


def _rate(told: Scenario) -> dict[str, Any]:
    began = process_time()
    outcome = simulate(replace(told, warm_up=0.0))
    seconds = process_time() - began
    model = outcome.models["model"]
    return {
        "mean_batch_size": round(model.mean_batch_size, 2),
        "requests_per_cpu_s": round(model.offered / seconds),
        "events_per_cpu_s": round(outcome.events / seconds),
    }


def error() -> list[dict[str, Any]]:
    """Samples beside the whole, where both are possible: by how much figures are off, and half of their intervals."""
    rows = []
    for way, load in COMPARED:
        told = at_load(GPUS, load, COMPARED_SECONDS, way)
        began = process_time()
        whole = Figures.calculated(simulate(told).models["model"])
        exact = process_time() - began
        for share in SHARES:
            began = process_time()
            found = sample(told, share).models["model"]
            seconds = {"whole": round(exact, 1), "sample": round(process_time() - began, 1)}
            of = {name: value for name, value in asdict(whole).items() if value is not None}
            half = {
                name: value if name == "refused_share" else value / of[name]
                for name, value in found.half.items()
                if value is not None and of.get(name)
            }
            row = {"way": way, "load": load, "gpus": GPUS, "gpus_of_a_part": int(GPUS * share), "cpu_s": seconds}
            row |= {"whole": of, "error": errors(whole, found.figures), "half": half}
            rows.append(row | {"error_of_parts": errors(whole, found.sizes[0])})
            print(rows[-1], flush=True)
    return rows


def large() -> list[dict[str, Any]]:
    """As ``shoal simulate`` does it by itself."""
    told = scenario(LARGE_GPUS, LARGE_RATE, LARGE_SECONDS, "objective 50 ms")
    began, wall = process_time(), perf_counter()
    share = share_for(told, PARTS)
    found = sample(told, share)
    row = {
        "gpus": LARGE_GPUS,
        "requests": round(LARGE_RATE * LARGE_SECONDS),
        "parts": found.parts,
        "gpus_of_a_part": int(LARGE_GPUS * share),
        "wall_minutes": round((perf_counter() - wall) / 60, 2),
        "cpu_minutes": round((process_time() - began) / 60, 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        **_said(found),
    }
    print(row)
    return [row]


def _said(found: Sample) -> dict[str, Any]:
    model = found.models["model"]
    return {
        "figures": asdict(model.figures),
        "half": dict(model.half),
        "sizes": [asdict(each) for each in model.sizes],
        "utilisation": found.outcome.utilisation["gpus"],
    }


if __name__ == "__main__":
    main()
