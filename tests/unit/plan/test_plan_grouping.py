"""Models that don't fit one GPU are grouped; the exact search against all ways, counted and compared by hand."""

from __future__ import annotations

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
