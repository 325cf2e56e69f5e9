"""Which models share GPUs: all, if they fit one's memory; else the groups that need the fewest GPUs.

Exact for up to eight models: all 4,140 ways to part them are looked at. Beyond, the best of three packings, each
improved by exchanging single models. That is no optimum; ``gap`` tells how far from one it can be at most. A solver
would close the gap, which is small: of constant loads every group needs less than one GPU more than they fill, so that
the number of groups counts, which is bin packing. The third packing, minimum bin slack (Gupta and Ho, Production
Planning and Control 10(6), 1999), was made for its hard cases.
"""

from __future__ import annotations

import math
from itertools import combinations, product
from typing import TYPE_CHECKING

from shoal.plan.bound import gpus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from shoal.plan.bound import PlannedLoad

    Groups = list[list[PlannedLoad]]
    Needs = dict[str, tuple[float, ...]]

MOST_EXACT = 8
_MOST_TRIES = 20_000
"""Sets of models that are looked at for a group, at most."""
_ROUNDING = 1e-9


def groups(models: Sequence[PlannedLoad], memory_gib: float) -> Groups:
    """The models that share GPUs, each model in one group; models in their order.

    Each fits a GPU's memory alone.
    """
    if _memory(models) <= memory_gib + _ROUNDING:
        return [list(models)]
    needs = _needs(models)
    if len(models) > MOST_EXACT:
        found = packings(models, memory_gib, needs)
    else:
        found = [
            parts
            for parts in partitions(list(models))
            if all(_memory(part) <= memory_gib + _ROUNDING for part in parts)
        ]
    return min(found, key=lambda parts: (_total(parts, needs), len(parts)))


def gap(models: Sequence[PlannedLoad], memory_gib: float, parts: Groups) -> int:
    """GPUs that ``parts`` need, by arithmetic, over what no grouping can beat: 0 says that they are the best.

    That is the load of all in the heaviest hour, and a GPU for each memory that all models fill together.
    """
    needs = _needs(models)
    least = max(_peak(models, needs), _memory(models) / memory_gib)
    return _total(parts, needs) - math.ceil(least - _ROUNDING)


def packings(models: Sequence[PlannedLoad], memory_gib: float, needs: Needs) -> list[Groups]:
    """Heavy loads first, so that others fill up what they leave free; large models first; and least slack."""
    orders: list[Callable[[PlannedLoad], float]] = [
        lambda model: -max(needs[model.name]),
        lambda model: -model.memory_gib,
    ]
    packed = [
        *(_first_fit(sorted(models, key=order), memory_gib) for order in orders),
        _least_slack(models, memory_gib),
    ]
    return [_improved(parts, memory_gib, needs) for parts in packed]


def _first_fit(models: Sequence[PlannedLoad], memory_gib: float) -> Groups:
    """Each goes into the first group that has the memory."""
    found: Groups = []
    for model in models:
        place = next((group for group in found if _memory([*group, model]) <= memory_gib + _ROUNDING), None)
        if place is None:
            found.append([model])
        else:
            place.append(model)
    return found


def _least_slack(models: Sequence[PlannedLoad], memory_gib: float) -> Groups:
    """One group after the other: the largest model left, and with it those that leave least of the memory free."""
    left, found = sorted(models, key=lambda model: -model.memory_gib), []
    while left:
        group = [left[0], *_fullest(left[1:], memory_gib - left[0].memory_gib)]
        found.append(group)
        left = [model for model in left if model not in group]
    return found


def _fullest(models: list[PlannedLoad], room: float) -> list[PlannedLoad]:
    """Those of ``models``, large ones first, that fill most of ``room``; the best of so many sets."""
    best: tuple[float, list[PlannedLoad]] = (0.0, [])
    waiting: list[tuple[int, float, list[PlannedLoad]]] = [(0, 0.0, [])]
    for _ in range(_MOST_TRIES):
        if not waiting:
            break
        begin, used, chosen = waiting.pop()
        if used > best[0]:
            best = used, chosen
        if room - used <= _ROUNDING:
            break
        waiting += [
            (number + 1, used + models[number].memory_gib, [*chosen, models[number]])
            for number in range(len(models) - 1, begin - 1, -1)  # the largest is looked at next
            if used + models[number].memory_gib <= room + _ROUNDING
        ]
    return best[1]


def _improved(parts: Groups, memory_gib: float, needs: Needs) -> Groups:
    """One model moved, or two exchanged, as long as that needs fewer GPUs or, of as many, fills less of them."""

    def cost(some: Groups) -> tuple[int, float]:
        return _total(some, needs), sum(_peak(group, needs) for group in some)

    while True:
        for here, there in combinations(range(len(parts)), 2):
            pair = [parts[here], parts[there]]
            other = min(_exchanges(pair[0], pair[1], memory_gib), key=cost, default=pair)
            if cost(other) < (cost(pair)[0], cost(pair)[1] - _ROUNDING):
                parts = [*(group for number, group in enumerate(parts) if number not in {here, there}), *other]
                break
        else:
            return parts


def _exchanges(one: list[PlannedLoad], other: list[PlannedLoad], memory_gib: float) -> Iterator[Groups]:
    """All ways to exchange one model or none of each that fit; a group that is empty then is none."""
    for mine, yours in product([*one, None], [*other, None]):
        first = [model for model in [*one, yours] if model not in {mine, None}]
        second = [model for model in [*other, mine] if model not in {yours, None}]
        groups = [[model for model in group if model is not None] for group in (first, second) if group]
        if all(_memory(group) <= memory_gib + _ROUNDING for group in groups):
            yield groups


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


def _needs(models: Sequence[PlannedLoad]) -> Needs:
    """GPUs that each fills in each hour."""
    return {model.name: tuple(gpus([model], hour) for hour in range(len(model.rates))) for model in models}


def _total(parts: Groups, needs: Needs) -> int:
    """GPUs of all groups at their peaks."""
    return sum(math.ceil(_peak(part, needs) - _ROUNDING) for part in parts)


def _peak(group: Sequence[PlannedLoad], needs: Needs) -> float:
    return max(map(sum, zip(*(needs[model.name] for model in group), strict=True)))


def _memory(group: Sequence[PlannedLoad]) -> float:
    return sum(model.memory_gib for model in group)
