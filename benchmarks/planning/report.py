"""Tables and plots of docs/plan.md, docs/simulate.md and docs/batching.md, from the results.

python -m benchmarks.planning.report
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.common.chapter import markdown, update
from benchmarks.common.files import DOCS, IMAGES, RESULTS, read_json
from benchmarks.planning import tables
from shoal.plan.page import day, needs
from shoal.profile.plot import STYLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LOADS = ("half", "ninety", "day")


def main() -> None:
    """Brings the chapter up to date."""
    results = {name: read_json(RESULTS / f"planning_{name}.json") for name in (*LOADS, "objectives", "served")}
    there = {name: result for name, result in results.items() if result is not None}
    # results of older versions are left as they stand in the chapter
    blocks = {f"planning-{name}": load(name, there[name]) for name in LOADS if _is_told_by_moments(there.get(name, {}))}
    if "objectives" in there:
        blocks["planning-objectives"] = objectives(there["objectives"])
    if "served" in there:
        blocks["planning-served"] = ways(there["served"])
    update(DOCS / "plan.md", blocks)
    calculated = tables.scale(read_json(RESULTS / "planning_scale.json") or {})
    beside = tables.validation(read_json(RESULTS / "planning_validation.json") or {})
    update(DOCS / "simulate.md", calculated | beside)
    update(DOCS / "batching.md", tables.growth(read_json(RESULTS / "planning_growth.json") or {}))


def _is_told_by_moments(result: Mapping[str, Any]) -> bool:
    deaths = result.get("deaths", {})
    return bool(deaths) and all("worst_before_ms" in one for loss in deaths.values() for one in loss["models"])


def load(name: str, result: Mapping[str, Any]) -> str:
    """A row a placement, its plot, and the questions' answers."""
    head = ("placement", "bound", "GPUs", "p99, ms", "mean batch", "busy", "p99 on 20", "a server lost", "a day")
    rows = []
    for one in result["placements"]:
        needed = one["needed"]
        total = sum(needed["gpus"].values()) if needed else None
        busy = f"{needed['utilisation']:.0%}" if needed else "-"
        cells = (_of(needed, "p99_ms"), _of(needed, "mean_batch"), busy, _of(one["given"], "p99_ms"))
        cost = "-" if one["cost_a_day"] is None else f"{one['cost_a_day']:,.0f}"
        rows.append((one["name"], str(one["bound"]), str(total), *cells, _of(one["server_lost"], "p99_ms"), cost))
    draw(result, IMAGES / f"planning-{name}.png")
    chosen = (
        f"Chosen: {result['chosen']}; {result['gpus']} GPUs keep the objective with a server lost. {served(result)}"
    )
    plot = f"![GPUs of each placement, and of each hour](images/planning-{name}.png)"
    told = "\n".join(f"- *{one['question']}* {one['answer']}" for one in result["answers"])
    return "\n\n".join([markdown(head, rows), chosen, plot, deaths(result["deaths"]), told])


def served(result: Mapping[str, Any]) -> str:
    """How the chosen placement serves its models."""
    models = "; ".join(
        f"{name}: {one['instance_count']} at once, {_closing(one)}" for name, one in result["settings"].items()
    )
    processes = ", ".join(map(str, result["worker_processes"].values()))
    return f"{models}; {processes} worker processes a GPU."


def _closing(one: Mapping[str, Any]) -> str:
    delay = one["max_queue_delay_microseconds"]
    return f"batches close after {delay / 1000:.2g} ms" if delay else "batches close by the objective"


def deaths(found: Mapping[str, Any]) -> str:
    """A server dies at the peak, on all GPUs that there are: a row a placement."""
    head = (
        "a server of 2 of 20 GPUs dies",
        "p99 before, ms",
        "worst moment before",
        "worst moment after",
        "no answer",
        "kept again after",
    )
    rows = [
        (
            name,
            ", ".join(f"{one['p99_before_ms']:,.1f}" for one in loss["models"]),
            ", ".join(f"{one['worst_before_ms']:,.1f}" for one in loss["models"]),
            ", ".join(f"{one['worst_p99_ms']:,.1f}" for one in loss["models"]),
            ", ".join(f"{one['lost_requests']:,}" for one in loss["models"]),
            ", ".join(_seconds(one["recovery_seconds"]) for one in loss["models"]),
        )
        for name, loss in found.items()
        if name.startswith("all models everywhere") and "least load" not in name
    ]
    return markdown(head, rows)


def _seconds(recovery: float | None) -> str:
    return "never" if recovery is None else f"{recovery:g} s"


def draw(result: Mapping[str, Any], path: Path) -> None:
    """GPUs by placement beside GPUs by hour."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        needs(left, result["placements"])
        day(right, dict(result))
        figure.savefig(path, dpi=110)


def objectives(result: Mapping[str, Any]) -> str:
    """GPUs against latency."""
    rows = [
        (
            f"{row['objective_ms']} ms",
            *(str(row[way][what] or "none") for way in ("permits", "round_robin") for what in ("bound", "gpus")),
        )
        for row in result["rows"]
    ]
    return markdown(("objective", "permits: bound", "GPUs", "round robin: bound", "GPUs"), rows)


def ways(result: Mapping[str, Any]) -> str:
    """p99 of both models by how they are served: a row a way, a column a number of GPUs."""
    found: dict[tuple[int, str], dict[int, Any]] = {}
    for row in result["rows"]:
        found.setdefault((row["worker_processes"], row["closing"]), {})[row["gpus"]] = row
    numbers = sorted({row["gpus"] for row in result["rows"]})
    head = (
        "worker processes",
        "batches close by",
        *(f"{gpus} GPUs" for gpus in numbers),
        f"mean batch on {numbers[-1]}",
    )
    rows = [
        (str(processes), closing, *(_of(of[gpus], "p99_ms") for gpus in numbers), _of(of[numbers[-1]], "mean_batch"))
        for (processes, closing), of in found.items()
    ]
    return markdown(head, rows)


def _of(trial: Mapping[str, Any] | None, figure: str) -> str:
    """Of each model; what had no answer beside it."""
    if trial is None:
        return "-"
    return ", ".join(
        f"{one[figure]:,.1f}"
        + (f" ({one['lost']:.0%} lost)" if figure == "p99_ms" and one.get("lost", 0) > 0.01 else "")
        for one in trial["models"].values()
    )


if __name__ == "__main__":
    main()
