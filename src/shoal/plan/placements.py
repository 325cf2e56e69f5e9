"""What people argue about: who shares GPUs with whom, and who batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.plan.grouping import groups
from shoal.plan.pool import PlannedPool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shoal.plan.bound import PlannedLoad


@dataclass(frozen=True, slots=True)
class Placement:
    """Pools, and how requests come to their replicas."""

    name: str
    pools: tuple[PlannedPool, ...]
    balancing: str = "permits"
    """As ``shoal.simulate.scenario.Scenario`` has it."""
    by_hour: bool = False
    """Whether replicas follow a timetable."""


def compared(models: Sequence[PlannedLoad], memory_gib: float) -> list[Placement]:
    """All that make sense for these models; each is told once, whatever its other names.

    Where all models fit one GPU, "shared" is the seed of every argument: all models everywhere. Where they don't, it is
    the groups that need the fewest GPUs. With two models "one dedicated, the others in a general pool" is the same as
    two dedicated pools, so it is left out.
    """
    return list(_compared(models, memory_gib))


def _compared(models: Sequence[PlannedLoad], memory_gib: float) -> Iterator[Placement]:
    together = groups(models, memory_gib)
    shared = _pools(together)
    word = "all models everywhere" if len(together) == 1 else "groups that fit a GPU"
    yield Placement(f"{word}, round robin", shared, "round_robin")
    yield Placement(f"{word}, least load", shared, "least_load")
    yield Placement(f"{word}, permits", shared)
    apart = [[model] for model in models]
    if len(models) > 1 and len(together) < len(models):
        yield Placement("dedicated pools", _pools(apart))
    if len(models) > 2:
        heavy = max(models, key=lambda model: PlannedPool("", (model,)).need(PlannedPool("", (model,)).peak_hour))
        others = [model for model in models if model is not heavy]
        mixed = [[heavy], *groups(others, memory_gib)]
        if len(mixed) < len(models) and sorted(map(len, mixed)) != sorted(map(len, together)):
            yield Placement(f"{heavy.name} dedicated, general for the others", _pools(mixed))
    if any(len(set(model.rates)) > 1 for model in models):
        yield Placement(f"{word}, permits, replicas by the hour", shared, by_hour=True)


def _pools(parts: Sequence[Sequence[PlannedLoad]]) -> tuple[PlannedPool, ...]:
    return tuple(PlannedPool(_name(part, len(parts)), tuple(part)) for part in parts)


def _name(part: Sequence[PlannedLoad], number: int) -> str:
    """Fit for a service file's pool: a model's own name, or the first one's and how many more."""
    if number == 1:
        return "default"
    return part[0].name if len(part) == 1 else f"{part[0].name[:50]}-and-{len(part) - 1}"
