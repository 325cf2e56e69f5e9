"""Models that don't fit one GPU are grouped; the exact search against all ways, counted and compared by hand."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from shoal.plan import grouping

if TYPE_CHECKING:
    from conftest import Maker


def test_all_share_where_they_fit(load: Maker) -> None:
    models = [load("a", memory=4), load("b", memory=4)]
    assert grouping.groups(models, 8) == [models]


def test_there_are_as_many_partitions_as_bell_says(load: Maker) -> None:
    assert [sum(1 for _ in grouping.partitions([load(str(i)) for i in range(n)])) for n in (1, 2, 3, 4, 8)] == [
        1,
        2,
        5,
        15,
        4140,
    ]


def test_the_groups_that_need_fewest_gpus_win(load: Maker) -> None:
    # 250/s fill a GPU. Loads of 0.6, 0.6, 0.4, 0.4 GPUs, two to a GPU's memory: 0.6 with 0.4 twice are 2 GPUs.
    models = [load(name, rate, memory=4) for name, rate in (("a", 150.0), ("b", 150.0), ("c", 100.0), ("d", 100.0))]
    found = {frozenset(model.name for model in group) for group in grouping.groups(models, 8)}
    assert found in ({frozenset("ac"), frozenset("bd")}, {frozenset("ad"), frozenset("bc")})


def test_beyond_eight_models_each_group_still_fits(load: Maker) -> None:
    models = [load(str(number), 10.0 * (number + 1), memory=3) for number in range(9)]
    found = grouping.groups(models, 7)
    assert sorted(model.name for group in found for model in group) == sorted(model.name for model in models)
    assert all(len(group) <= 2 for group in found)
    assert len(found) == 5


def test_the_packings_against_all_ways(load: Maker) -> None:
    """Of eight models, for which all ways are known: at most one GPU more than the best, and mostly none."""
    source, over = random.Random(1), []
    for _ in range(30):
        models = [
            load(str(number), *(source.uniform(0, 400) for _ in range(3)), memory=source.uniform(1, 6))
            for number in range(8)
        ]
        needs = grouping._needs(models)
        best = grouping._total(grouping.groups(models, 8), needs)
        made = [grouping._total(parts, needs) for parts in grouping.packings(models, 8, needs)]
        over.append(min(made) - best)
    assert min(over) == 0
    assert max(over) <= 1
    assert over.count(0) >= 28


def test_a_hard_case_of_bin_packing_is_packed_where_first_fit_is_not(load: Maker) -> None:
    """Triplets (Falkenauer, Journal of Heuristics 2, 1996): each three fill a memory to the brim."""
    source, models = random.Random(1), []
    for number in range(20):
        first = source.uniform(38, 49)
        second = source.uniform((100 - first) / 2, 50)
        for part, memory in enumerate((first, second, 100 - first - second)):
            models.append(load(f"{number}-{part}", 1.0, memory=memory))
    source.shuffle(models)
    found = grouping.groups(models, 100)
    assert sorted(model.name for group in found for model in group) == sorted(model.name for model in models)
    assert all(sum(model.memory_gib for model in group) <= 100 + 1e-6 for group in found)
    assert len(found) == 20
    assert grouping.gap(models, 100, found) == 0
    assert grouping.gap(models, 100, [[model] for model in models]) == 40
    first_fit = grouping._first_fit(sorted(models, key=lambda model: -model.memory_gib), 100)
    assert len(first_fit) > len(found)
