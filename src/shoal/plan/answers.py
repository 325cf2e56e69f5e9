"""The questions that begin every plan, answered for one load: ``shoal plan --explain``."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

from shoal.plan.bound import best, gpus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.plan.bound import PlannedLoad
    from shoal.plan.history import History
    from shoal.plan.loss import ModelLoss
    from shoal.plan.planning import Entry, Plan

_MIXES = (0.1, 0.5, 0.9)
_HOURS = 24
_START_MINUTES = 2
"""From the wish for a replica to its first batch: scheduling, image, loading models. See docs/rollouts.md."""


def answers(plan: Plan, past: History | None) -> list[tuple[str, str]]:
    """Question and answer of each, in order.

    Args:
        plan: What was found.
        past: The load of past weeks, where it is known.
    """
    return [
        ("What is the breakdown of load expected for each model? Is it 50/50? Or is it 90/10?", _mix(plan)),
        ("Does it vary by time of day?", _day(plan)),
        ("Is it predictive?", _predictive(plan, past)),
        ("What happens when a server dies at the peak?", _loss(plan)),
        ("What does sharing save against dedicated pools?", _sharing(plan)),
        ("What does batching before the load balancer save at this size?", _batching(plan)),
    ]


def _mix(plan: Plan) -> str:
    hour = plan.peak_hour
    total = sum(model.rates[hour] for model in plan.models)
    parts = ", ".join(f"{model.name} {model.rates[hour] / total:.0%}" for model in plan.models)
    text = f"At the peak ({hour}:00): {parts} of {total:,.0f} pictures a second."
    if len(plan.models) != 2:
        return f"{text} In one pool any mix that fills as many GPUs is as good: load over rate, summed over models."
    first = plan.models[0]
    needs = ", ".join(f"{share:.0%} {first.name} {_mixed(plan.models, total, share):.1f}" for share in _MIXES)
    return (
        f"{text} As many pictures in another mix need, by arithmetic, these GPUs: {needs}. In one pool that sum is all "
        "that counts. Dedicated pools fit one mix: at another, one pool is too small while the other is idle."
    )


def _mixed(models: Sequence[PlannedLoad], total: float, share: float) -> float:
    """GPUs of two models that get ``share`` and the rest of ``total``."""
    rates = (total * share, total * (1 - share))
    found = [best(model, rate) for model, rate in zip(models, rates, strict=True)]
    return sum(math.inf if one is None else rate / one.per_s for one, rate in zip(found, rates, strict=True))


def _day(plan: Plan) -> str:
    peak, mean = max(plan.bound_by_hour), fmean(plan.bound_by_hour)
    if peak - min(plan.bound_by_hour) < 1e-9:
        return "Not in this plan: every hour has the same load. by_hour: [24 numbers] tells of a day."
    text = f"Yes: the mean hour fills {mean / peak:.0%} of the GPUs of the peak ({mean:.1f} of {peak:.1f})."
    timed = _entry(plan, by_hour=True)
    fixed = _entry(plan, balancing="permits")
    if timed and fixed and timed.gpu_hours and fixed.gpu_hours:
        saved = fixed.gpu_hours - timed.gpu_hours
        text += (
            f" Replicas by the hour take {timed.gpu_hours:,} GPU-hours a day where the peak all day takes "
            f"{fixed.gpu_hours:,}: {saved / fixed.gpu_hours:.0%} less{_money(plan, saved)}."
        )
    return text


def _predictive(plan: Plan, past: History | None) -> str:
    told = (
        "That needs the past: --history CSV (hour, model, per_s) of two weeks, or --prometheus URL."
        if past is None
        else past.prediction()
    )
    hourly = next((entry.hourly for entry in plan.entries if entry.hourly), ())
    if not hourly:
        return told
    rises = [max(later - now, 0) for now, later in zip(hourly, [*hourly[1:], hourly[0]], strict=True)]
    late = sum(rises) * _START_MINUTES
    return (
        f"{told} Following the signal, the GPUs of each rise come {_START_MINUTES} minutes after the load: "
        f"{late:,} GPU-minutes a day are missing, in rises of up to {max(rises)} GPUs, unless kept free. "
        f"Scaling ahead by the hour needs none of these: {_HOURS * max(rises):,} GPU-hours a day less than a constant "
        "reserve of the largest rise."
    )


def _loss(plan: Plan) -> str:
    if plan.loss is None:
        return "No placement keeps the objectives as it is."
    told = " ".join(map(_model_loss, plan.loss.models))
    return (
        f"A server of {plan.loss.server_gpus} of the {plan.loss.gpus} GPUs vanishes, which is noticed after "
        f"{plan.loss.detection_seconds:g} s; nothing replaces it. {told} Moments are of {plan.loss.moment_seconds:g} s."
    )


def _model_loss(one: ModelLoss) -> str:
    if one.recovery_seconds is None:
        well = "the objective isn't kept again"
    elif one.recovery_seconds:
        well = f"{one.recovery_seconds:g} s later the objective is kept again"
    else:
        well = "the objective is kept all the time"
    return (
        f"{one.name}: p99 is {one.p99_before_ms:.1f} ms before it; in the worst moment it is {one.worst_p99_ms:.1f} "
        f"ms, where the worst before had {one.worst_before_ms:.1f}; {one.lost_requests:,} requests get no "
        f"answer, and {well}."
    )


def _lost(shared: Entry, apart: Entry) -> str:
    if shared.surviving is None or apart.surviving is None:
        return ""
    return (
        f" With a server lost it is {shared.surviving.total} and {apart.surviving.total}: each pool needs a reserve of "
        "its own, since nobody knows whose server dies."
    )


def _sharing(plan: Plan) -> str:
    shared, apart = _entry(plan, balancing="permits"), _entry(plan, dedicated=True)
    if shared is None or apart is None or shared.needed is None or apart.needed is None:
        return f"Arithmetic alone: {math.ceil(max(plan.bound_by_hour))} GPUs shared, {_apart(plan)} dedicated."
    saved = apart.needed.total - shared.needed.total
    return (
        f"Simulated: {shared.needed.total} GPUs shared, {apart.needed.total} dedicated: {saved} saved"
        f"{_money(plan, 24 * saved)}.{_lost(shared, apart)} By arithmetic: {shared.bound} and {apart.bound}. Dedicated "
        "pools round up each, and each has to hold its own model's peak, at whatever hour that is."
    )


def _apart(plan: Plan) -> int:
    hours = range(len(plan.bound_by_hour))
    return sum(math.ceil(max(gpus([model], hour) for hour in hours)) for model in plan.models)


def _batching(plan: Plan) -> str:
    front = _entry(plan, balancing="permits")
    inside = [entry for entry in plan.entries if entry.placement.balancing != "permits" and entry.needed]
    if front is None or front.needed is None or not inside:
        return "No placement to compare keeps the objectives."
    least = min(inside, key=lambda entry: entry.needed.total if entry.needed else 0)
    assert least.needed is not None
    saved = least.needed.total - front.needed.total
    sizes = ", ".join(
        f"{ahead.name} {ahead.mean_batch:.1f} in front and {behind.mean_batch:.1f} inside"
        for ahead, behind in zip(front.needed.models, least.needed.models, strict=True)
    )
    gpus = f"{abs(saved)} GPU" if abs(saved) == 1 else f"{abs(saved)} GPUs"
    said = gpus if saved > 0 else f"None; it costs {gpus}" if saved else "None"
    why = _why(saved)
    return (
        f"{said}: {front.needed.total} with Shoal's batcher in front, {least.needed.total} with "
        f"{least.placement.name}. Mean batches: {sizes}. {why}"
    )


def _why(saved: int) -> str:
    if saved > 0:
        return "A replica sees too small a share of the load to fill its batches within the objective."
    why = "Each replica sees enough load to fill its own batches within the objective."
    if saved < 0:
        why += (
            " In front, a batch holds one of its worker's permits while it is gathered and prepared, and for the way "
            "there and back; sizing.prepare_ms, worker processes and the number at once bound what a GPU gets so."
        )
    return why


def _entry(plan: Plan, *, balancing: str = "", dedicated: bool = False, by_hour: bool = False) -> Entry | None:
    shared = plan.entries[0].placement.pools
    for entry in plan.entries:
        placement = entry.placement
        if dedicated:
            if len(placement.pools) == len(plan.models) > 1 and placement.pools != shared:
                return entry
        elif placement.by_hour == by_hour and (by_hour or placement.balancing == balancing):
            return entry
    return None


def _money(plan: Plan, gpu_hours: float) -> str:
    price = plan.document.prices.per_gpu_hour
    return "" if price is None else f", {price * gpu_hours:,.0f} a day"
