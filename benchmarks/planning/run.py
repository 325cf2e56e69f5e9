"""Scenario #1 for three loads, and what the objective costs. Calculated: no GPU is needed. 15 minutes.

python -m benchmarks.planning.run [LOAD ...] [--requests 15000]

Loads are half, ninety, day; objectives is half again, with one objective after the other.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.common.files import DOCS, RESULTS, write_json
from shoal.plan import document, planning
from shoal.plan.answers import answers
from shoal.plan.figures import figures
from shoal.plan.loss import server_dies
from shoal.plan.placements import compared
from shoal.plan.search import bound, fewest
from shoal.plan.trial import Bench

if TYPE_CHECKING:
    from shoal.plan.document import PlanDocument

FOLDER = DOCS.parent / "deploy" / "scenarios" / "two-models-twenty-gpus"
FILES = {"half": "plan.yaml", "ninety": "plan-90-10.yaml", "day": "plan-day.yaml"}
OBJECTIVES = "objectives"
OBJECTIVES_MS = (15, 25, 50)
DEATHS = ("permits", "round_robin")
"""Of a server, at the peak, with all GPUs that there are: shown for all models everywhere."""


def main() -> None:
    """Calculates and writes the results."""
    options = parser().parse_args()
    for name in options.loads:
        made = objectives(options.requests) if name == OBJECTIVES else one(FILES[name], options.requests)
        write_json(RESULTS / f"planning_{name}.json", made)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*FILES, OBJECTIVES]
    made.add_argument("loads", nargs="*", default=names, metavar="LOAD", choices=names)
    made.add_argument("--requests", type=int, default=15_000)
    return made


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


def _with_objective(wanted: PlanDocument, objective_ms: float) -> PlanDocument:
    models = {
        name: model.model_copy(update={"latency_objective_ms": objective_ms}) for name, model in wanted.models.items()
    }
    return wanted.model_copy(update={"models": models})


if __name__ == "__main__":
    main()
