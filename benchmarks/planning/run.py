"""Scenario #1 for three loads, and what the objective costs. Calculated: no GPU is needed.

python -m benchmarks.planning.run [LOAD ...] [--requests 15000]

Loads are half, ninety, day; objectives is half again, with one objective after the other, and served in one way of
serving after the other.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.common.files import DOCS, RESULTS, write_json
from shoal.plan import document, planning
from shoal.plan.answers import answers
from shoal.plan.figures import figures
from shoal.plan.loss import server_dies
from shoal.plan.placements import compared
from shoal.plan.pool import Tuning
from shoal.plan.search import bound, fewest
from shoal.plan.trial import Bench

if TYPE_CHECKING:
    from shoal.plan.document import PlanDocument

FOLDER = DOCS.parent / "deploy" / "scenarios" / "two-models-twenty-gpus"
FILES = {"half": "plan.yaml", "ninety": "plan-90-10.yaml", "day": "plan-day.yaml"}
OBJECTIVES = "objectives"
OBJECTIVES_MS = (15, 25, 50)
SERVED = "served"
WAYS: tuple[tuple[int, Literal["objective", "delay"]], ...] = (
    (1, "objective"),
    (2, "objective"),
    (4, "objective"),
    (4, "delay"),
)
"""Worker processes of a GPU, and what closes batches."""
SERVED_GPUS = (11, 12, 13)
DEATHS = ("permits", "round_robin")
"""Of a server, at the peak, with all GPUs that there are: shown for all models everywhere."""


def main() -> None:
    """Calculates and writes the results."""
    options = parser().parse_args()
    for name in options.loads:
        write_json(RESULTS / f"planning_{name}.json", made(name, options.requests))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*FILES, OBJECTIVES, SERVED]
    made.add_argument("loads", nargs="*", default=names, metavar="LOAD", choices=names)
    made.add_argument("--requests", type=int, default=15_000)
    return made


def made(name: str, requests: int) -> dict[str, Any]:
    """The results of one."""
    if name == OBJECTIVES:
        return objectives(requests)
    return served(requests) if name == SERVED else one(FILES[name], requests)


def one(file: str, requests: int) -> dict[str, Any]:
    """The plan of a load, with the questions answered."""
    wanted = document.load(FOLDER / file)
    bench = Bench(
        wanted.hardware.gpus_per_server, requests=requests, process_images_per_s=wanted.sizing.process_images_per_s
    )
    found = planning.plan(wanted, planning.models_of(wanted, FOLDER), bench, print)
    told = [{"question": asked, "answer": answer} for asked, answer in answers(found, None)]
    deaths = {entry.placement.name: asdict(server_dies(bench, entry.given)) for entry in found.entries if entry.given}
    return {"requests": requests, **figures(found), "deaths": deaths, "answers": told}


def objectives(requests: int) -> dict[str, Any]:
    """GPUs of all models everywhere, by permits and by round robin, for each objective."""
    wanted = document.load(FOLDER / FILES["half"])
    rows = []
    for objective in OBJECTIVES_MS:
        changed = _with_objective(wanted, objective)
        models = planning.models_of(changed, FOLDER)
        bench = Bench(changed.hardware.gpus_per_server, requests=requests)
        row: dict[str, Any] = {"objective_ms": objective}
        for placement in compared(models, changed.hardware.gpu_memory_gib):
            if placement.balancing != "least_load" and len(placement.pools) == 1:
                print(objective, placement.name)
                trial = fewest(bench, placement)
                row[placement.balancing] = {"bound": bound(placement), "gpus": trial and trial.total}
        rows.append(row)
    return {"requests": requests, "rows": rows}


def served(requests: int) -> dict[str, Any]:
    """All models everywhere by permits, served in each of ``WAYS``, on some numbers of GPUs; no search."""
    wanted = document.load(FOLDER / FILES["half"])
    placements = compared(planning.models_of(wanted, FOLDER), wanted.hardware.gpu_memory_gib)
    placement = next(one for one in placements if one.balancing == "permits" and len(one.pools) == 1)
    [pool] = placement.pools
    of_a_gpu = sum(model.peak for model in pool.models) / pool.need(pool.peak_hour)
    rows = []
    for processes, closing in WAYS:
        bench = Bench(wanted.hardware.gpus_per_server, requests=requests, process_images_per_s=of_a_gpu / processes + 1)
        tuned = replace(placement, pools=(replace(pool, tuning=Tuning(closing=closing)),))
        for gpus in SERVED_GPUS:
            print(processes, closing, gpus)
            trial = bench.trial(tuned, {pool.name: gpus})
            of = {one.name: {"p99_ms": one.p99_ms, "mean_batch": one.mean_batch} for one in trial.models}
            rows.append({"worker_processes": processes, "closing": closing, "gpus": gpus, "models": of})
    return {"requests": requests, "rows": rows}


def _with_objective(wanted: PlanDocument, objective_ms: float) -> PlanDocument:
    models = {
        name: model.model_copy(update={"latency_objective_ms": objective_ms}) for name, model in wanted.models.items()
    }
    return wanted.model_copy(update={"models": models})


if __name__ == "__main__":
    main()
