"""The plan: all placements sized and simulated, the winner chosen, what it costs and what becomes of it in a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shoal.errors import ConfigurationError
from shoal.plan import costs
from shoal.plan.bound import PlannedLoad, check, gpus, gpus_apart, gpus_inside, peak_hour
from shoal.plan.loss import server_dies
from shoal.plan.placements import compared
from shoal.plan.search import bound, fewest, spread, timetable
from shoal.simulate.spreads import median
from shoal.simulate.stages import check_models

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from shoal.plan.document import PlanDocument
    from shoal.plan.loss import Loss
    from shoal.plan.placements import Placement
    from shoal.plan.trial import Bench, Trial
    from shoal.simulate.scenario import Spread

_MILLISECONDS = 1000
_CONTENDERS = 2
"""Placements that are simulated with a server lost before one is named."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A placement and what came of it."""

    placement: Placement
    bound: int
    needed: Trial | None
    """With the fewest GPUs that keep all objectives; None: no number does."""
    given: Trial | None = None
    """With the GPUs that there are."""
    given_lost: Trial | None = None
    """The same with a server lost."""
    surviving: Trial | None = None
    """With the fewest GPUs that keep all objectives while a server is lost; of the contenders alone."""
    hourly: tuple[int, ...] = ()
    """GPUs of each hour, where they follow a timetable."""

    @property
    def gpu_hours(self) -> int | None:
        """In a day."""
        if self.needed is None:
            return None
        return sum(self.hourly) if self.hourly else 24 * self.needed.total


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it."""

    document: PlanDocument
    models: tuple[PlannedLoad, ...]
    peak_hour: int
    bound_by_hour: tuple[float, ...]
    """GPUs by arithmetic, not rounded."""
    bound_apart: int
    bound_inside: int
    """At the peak hour: in dedicated pools; where each replica batches for itself."""
    entries: tuple[Entry, ...]
    winner: Entry | None
    runner_up: Entry | None
    loss: Loss | None = None
    """What it means for the winner, with its GPUs, when a server dies at the peak."""

    @property
    def gpus(self) -> int | None:
        """What the winner needs with a server's loss kept in reserve."""
        if self.winner is None:
            return None
        trial = self.winner.surviving or self.winner.needed
        return None if trial is None else trial.total


def models_of(
    document: PlanDocument, folder: Path, stages: Mapping[str, Spread] | None = None
) -> tuple[PlannedLoad, ...]:
    """The models as the arithmetic sees them; those without any load are left out.

    Args:
        document: The plan file.
        folder: Where it is; profiles are found from there.
        stages: What preparing a picture takes, by model, in place of ``sizing.prepare_ms``.

    Raises:
        ConfigurationError: a profile can't be used, an objective is below the time of one picture, or ``stages`` lacks
            a model.
    """
    if stages is not None:
        check_models(stages, document.models)
    found = []
    for name, model in document.models.items():
        rates = document.rates(name)
        preparing = stages[name] if stages is not None else None
        load = PlannedLoad(
            name,
            costs.read(model, name, folder),
            model.memory_gib,
            model.latency_objective_ms / _MILLISECONDS,
            document.sizing.prepare_ms / _MILLISECONDS if preparing is None else median(preparing),
            rates,
            preparing,
        )
        check(load)
        if any(rates):
            found.append(load)
    if not found:
        raise ConfigurationError("no model has any load: nothing to plan")
    return tuple(found)


def plan(
    document: PlanDocument, models: Sequence[PlannedLoad], bench: Bench, say: Callable[[str], object] = str
) -> Plan:
    """Sizes every placement, then simulates winner and runner-up with a server lost.

    Args:
        document: The plan file.
        models: See ``models_of``.
        bench: How trials are made.
        say: Told what is tried now.
    """
    entries: list[Entry] = []
    for placement in compared(models, document.hardware.gpu_memory_gib):
        say(placement.name)
        entries.append(_entry(placement, entries, document, bench))
    contenders = sorted((entry for entry in entries if _runs_on_shoal(entry)), key=_size)[:_CONTENDERS]
    for entry in contenders:
        say(f"{entry.placement.name}, a server lost")
        entries[entries.index(entry)] = _surviving(entry, bench)
    ranked = sorted((entry for entry in entries if entry.surviving is not None), key=_size)
    winner = ranked[0] if ranked else next(iter(contenders), None)
    trial = winner and (winner.surviving or winner.needed)
    if trial:
        say("a server dies at the peak")
    peak = peak_hour(models)
    return Plan(
        document,
        tuple(models),
        peak,
        tuple(gpus(models, hour) for hour in range(len(models[0].rates))),
        gpus_apart(models, peak),
        gpus_inside(models, peak),
        tuple(entries),
        winner,
        ranked[1] if len(ranked) > 1 else None,
        server_dies(bench, trial) if trial else None,
    )


def _entry(placement: Placement, before: Sequence[Entry], document: PlanDocument, bench: Bench) -> Entry:
    if placement.by_hour:  # its peak is the same pools' without a timetable
        same = next(entry for entry in before if (entry.placement.pools, entry.placement.balancing) == _kind(placement))
        hourly = timetable(bench, placement, same.needed) if same.needed else ()
        return Entry(placement, same.bound, same.needed, hourly=hourly)
    needed = fewest(bench, placement)
    there = document.hardware.gpus
    if needed is None or there is None or there < len(placement.pools):
        return Entry(placement, bound(placement), needed)
    given = spread(needed, there)
    return Entry(
        placement,
        bound(placement),
        needed,
        bench.trial(needed.placement, given),
        bench.trial(needed.placement, given, lose_server=True),
    )


def _kind(placement: Placement) -> tuple[Any, str]:
    return placement.pools, placement.balancing


def _runs_on_shoal(entry: Entry) -> bool:
    """Shoal balances by permits; the others are told for comparison. A timetable is a saving on top of its pools."""
    return entry.needed is not None and entry.placement.balancing == "permits" and not entry.placement.by_hour


def _surviving(entry: Entry, bench: Bench) -> Entry:
    assert entry.needed is not None
    surviving = fewest(bench, entry.placement, lose_server=True, least=entry.needed.gpus)
    return Entry(entry.placement, entry.bound, entry.needed, entry.given, entry.given_lost, surviving, entry.hourly)


def _size(entry: Entry) -> tuple[int, int, int]:
    """Fewer GPUs with a server lost, then without, then fewer pools."""
    assert entry.needed is not None
    surviving = entry.surviving.total if entry.surviving else entry.needed.total
    return surviving, entry.needed.total, len(entry.placement.pools)
