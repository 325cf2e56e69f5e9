"""How ``shoal plan`` shows what it found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from shoal.plan.figures import cores_a_gpu, processes_of, settings_of
from shoal.plan.grouping import MOST_EXACT, gap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shoal.plan.planning import Entry, Plan
    from shoal.plan.trial import Trial


def table(plan: Plan) -> Table:
    """A row a placement. p99 and batches are of the models in the order of the file."""
    there = plan.document.hardware.gpus
    price = plan.document.prices.per_gpu_hour
    shown = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"at the peak of each pool; models: {', '.join(model.name for model in plan.models)}",
        caption="bound: by arithmetic; the rest is simulated with the service's own batching policy",
    )
    shown.add_column("placement")
    names = ["bound", "GPUs", "p99, ms", "mean batch", "busy"]
    names += [f"p99 on {there}", "a server lost"] if there else []
    names += ["GPU-hours a day"] + (["cost a day"] if price else [])
    for name in names:
        shown.add_column(name, justify="right")
    for entry in plan.entries:
        hours = entry.gpu_hours
        row = [entry.placement.name, f"{entry.bound:,}", *_needed(entry.needed)]
        row += [p99(entry.given), p99(entry.given_lost)] if there else []
        row.append("-" if hours is None else f"{hours:,}")
        row += [("-" if hours is None else f"{price * hours:,.0f}")] if price else []
        shown.add_row(*row, style="bold" if plan.winner is entry else None)
    return shown


def sentences(plan: Plan) -> Iterator[str]:
    """The bound, the choice, and what it needs besides GPUs."""
    peak = plan.bound_by_hour[plan.peak_hour]
    yield (
        f"Lower bound: {peak:.1f} GPUs at {plan.peak_hour}:00, {min(plan.bound_by_hour):.1f} at the least hour; "
        f"{plan.bound_apart} in dedicated pools, {plan.bound_inside} where each replica batches for itself."
    )
    yield from _grouped(plan)
    if plan.winner is None or plan.winner.needed is None:
        yield "No placement keeps the objectives, whatever the number of GPUs: give them more time."
        return
    yield from _choice(plan, plan.winner, plan.winner.needed)
    told = ", ".join(
        f"{name} batches of up to {one['max_batch_size']}, {one['instance_count']} at once on a GPU, {_closing(one)}"
        for name, one in settings_of(plan).items()
    )
    yield f"Settings: {told}."
    processes = ", ".join(
        f"{number}{f' in {name}' if len(processes_of(plan)) > 1 else ''}" for name, number in processes_of(plan).items()
    )
    yield f"Worker processes a GPU: {processes}."
    if (cores := cores_a_gpu(plan)) is not None:
        yield f"CPU: {cores:g} cores a GPU at the peak{_too_few(plan, cores)}."


def _grouped(plan: Plan) -> Iterator[str]:
    """How good the groups can be, where not all were looked at."""
    parts = [list(pool.models) for pool in plan.entries[0].placement.pools]
    if len(parts) > 1 and len(plan.models) > MOST_EXACT:
        over = gap(plan.models, plan.document.hardware.gpu_memory_gib, parts)
        yield f"Groups: by arithmetic no grouping needs {f'more than {over} GPUs' if over else 'any GPU'} less."


def _closing(one: dict[str, int]) -> str:
    delay = one["max_queue_delay_microseconds"]
    return f"closed after {delay / 1000:g} ms" if delay else "closed by the objective"


def _too_few(plan: Plan, cores: float) -> str:
    hardware = plan.document.hardware
    if hardware.cores_per_server is None:
        return ""
    there = hardware.cores_per_server / hardware.gpus_per_server
    return f"; a server has {there:g}" + (": too few" if there < cores else "")


def p99(trial: Trial | None) -> str:
    """Of each model, what misses its objective marked; with the share that had no answer, where that is the reason."""
    if trial is None:
        return "-"
    return " ".join(
        ("-" if one.p99_ms is None else f"{one.p99_ms:,.1f}")
        + ("" if one.in_time else "!")
        + (f" ({one.lost:.0%} lost)" if one.lost > 0.01 else "")
        for one in trial.models
    )


def _needed(trial: Trial | None) -> list[str]:
    if trial is None:
        return ["none", "-", "-", "-"]
    gpus = " + ".join(map(str, trial.gpus.values()))
    number = f"{trial.total} = {gpus}" if len(trial.gpus) > 1 else gpus
    batches = " ".join(f"{one.mean_batch:.1f}" for one in trial.models)
    return [number, p99(trial), batches, f"{trial.mean_utilisation:.0%}"]


def _choice(plan: Plan, winner: Entry, needed: Trial) -> Iterator[str]:
    server = plan.document.hardware.gpus_per_server
    survives = (
        f"{winner.surviving.total} keep it when a server of {server} GPU{'s' * (server > 1)} is lost at the peak (p99 "
        f"{p99(winner.surviving)} ms)"
        if winner.surviving
        else "no number keeps it when a server is lost"
    )
    yield f"Choice: {winner.placement.name}. {needed.total} GPUs keep the objective; {survives}."
    if plan.runner_up is not None and plan.runner_up.surviving is not None:
        yield f"Next best: {plan.runner_up.placement.name}, {plan.runner_up.surviving.total} with a server lost."
    there = plan.document.hardware.gpus
    if there is not None and plan.gpus is not None:
        left = there - plan.gpus
        yield (
            f"There are {there}: {left} to spare."
            if left >= 0
            else f"There are {there}: {-left} too few, {-(left // server)} servers."
        )
