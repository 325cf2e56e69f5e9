"""Which models share GPUs: all, if they fit one's memory; else the groups that need the fewest GPUs.

Exact for up to eight models: all 4,140 ways to part them are looked at. Beyond, first fit, heavy loads first: each goes
into the first group that has the memory. That is no optimum.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from shoal.plan.bound import gpus

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shoal.plan.bound import PlannedLoad

    Groups = list[list[PlannedLoad]]

MOST_EXACT = 8


def groups(models: Sequence[PlannedLoad], memory_gib: float) -> Groups:
    """The models that share GPUs, each model in one group; models in their order.

    Each fits a GPU's memory alone.
    """
    if _memory(models) <= memory_gib:
        return [list(models)]
    if len(models) > MOST_EXACT:
        return first_fit(models, memory_gib)
    fitting = (parts for parts in partitions(list(models)) if all(_memory(part) <= memory_gib for part in parts))
    return min(fitting, key=_need)


def first_fit(models: Sequence[PlannedLoad], memory_gib: float) -> Groups:
    """Heavy loads first, so that what is left over fills up what they leave free."""
    found: Groups = []
    for model in sorted(models, key=lambda model: -_peak([model])):
        place = next((group for group in found if _memory([*group, model]) <= memory_gib), None)
        if place is None:
            found.append([model])
        else:
            place.append(model)
    return found


def partitions(models: list[PlannedLoad]) -> Iterator[Groups]:
    """All ways to part them."""
    if not models:
        yield []
        return
    first, rest = models[0], models[1:]
    for parts in partitions(rest):
        yield [[first], *parts]
        for place, part in enumerate(parts):
            yield [*parts[:place], [first, *part], *parts[place + 1 :]]


def _need(parts: Groups) -> tuple[int, int]:
    """GPUs of all groups at their peaks; among equals fewer groups, which share better."""
    return sum(math.ceil(_peak(part)) for part in parts), len(parts)


def _peak(group: Sequence[PlannedLoad]) -> float:
    return max(gpus(group, hour) for hour in range(len(group[0].rates)))


def _memory(group: Sequence[PlannedLoad]) -> float:
    return sum(model.memory_gib for model in group)
