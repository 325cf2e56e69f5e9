"""The arithmetic against sums done by hand: 10 ms for a batch of 1, 20 ms for one of 5, so 2.5 ms a further picture."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from shoal.errors import ConfigurationError
from shoal.plan import bound
from shoal.simulate.costs import of_times

if TYPE_CHECKING:
    from conftest import Maker


def test_the_best_batch_is_the_largest_that_gathers_and_executes_in_time(load: Maker) -> None:
    # At 100/s the fifth comes 40 ms after the first; 40 + 20 fits 100 ms: 5 in 20 ms are 250/s.
    assert bound.best(load(objective=0.1), 100) == bound.Best(5, 1, 250)
    # 60 ms just fits; 59 doesn't, and four take 30 + 17.5 ms: 4 in 17.5 ms.
    assert bound.best(load(objective=0.060), 100) == bound.Best(5, 1, 250)
    found = bound.best(load(objective=0.059), 100)
    assert found is not None
    assert (found.batch, found.per_s) == (4, pytest.approx(4 / 0.0175))


def test_preparing_takes_from_the_objective(load: Maker) -> None:
    found = bound.best(load(objective=0.065, prepare=0.006), 100)
    assert found is not None
    assert found.batch == 4


def test_batches_at_once_are_slower_each_and_faster_together(load: Maker) -> None:
    model = replace(load(objective=0.1), costs=of_times({5: 20}, {4: 2.5}))
    # Each of four takes 20 · 4 / 2.5 = 32 ms: 40 + 32 fits; 4 · 5 in 32 ms are 625/s. Two: 1.5 at once, 375/s.
    assert bound.best(model, 100) == bound.Best(5, 4, 625)
    tight = bound.best(replace(model, objective=0.07), 100)
    assert tight is not None
    assert (tight.at_once, tight.per_s) == (3, pytest.approx(5 * 2 / 0.02))


def test_none_is_in_time_where_one_picture_is_not(load: Maker) -> None:
    assert bound.best(load(objective=0.009), 100) is None
    with pytest.raises(
        ConfigurationError, match=r"models.m.latency_objective_ms: 9 ms is below .* expected 10 or more"
    ):
        bound.check(load(objective=0.009))
    bound.check(load(objective=0.010))


def test_gpus_are_summed_over_models_and_rounded_up_apart(load: Maker) -> None:
    models = [load("a", 300.0), load("b", 325.0)]
    assert bound.gpus(models, 0) == pytest.approx(300 / 250 + 325 / 250)
    assert bound.gpus_apart(models, 0) == 4


def test_each_of_several_replicas_sees_its_share(load: Maker) -> None:
    # Two of 100/s see 50/s each: with 60 ms three gather in 40 ms and take 15, four don't. One replica, of 100/s, is
    # enough: 5 in 20 ms. At 260/s one isn't; two see 130/s, where 5 gather in 31 ms.
    assert bound.gpus_inside([load("a", 100.0, objective=0.06)], 0) == 1
    assert bound.gpus_inside([load("a", 260.0, objective=0.06)], 0) == 2
    # With 21 ms nobody gathers five at 100/s a replica; batches of 1 in 10 ms need 10 replicas for 1,000/s. In front,
    # five gather in 4 ms but take 20: four take 3 + 17.5 ms.
    tight = load("a", 1000.0, objective=0.021)
    assert bound.gpus([tight], 0) == pytest.approx(1000 * 0.0175 / 4)
    n = bound.gpus_inside([tight], 0)
    for replicas in range(1, n + 2):
        best = max(
            (
                b / (0.01 + 0.0025 * (b - 1))
                for b in range(1, 6)
                if (b - 1) * replicas / 1000 + 0.01 + 0.0025 * (b - 1) <= 0.021
            ),
            default=0,
        )
        assert (1000 / replicas <= best) == (replicas >= n)


def test_an_hour_without_load_needs_nothing_and_the_peak_is_the_first_of_the_heaviest(load: Maker) -> None:
    model = load("a", 0.0, 10.0, 20.0, 20.0)
    assert bound.gpus([model], 0) == 0
    assert bound.peak_hour([model]) == 2
    assert not math.isnan(bound.gpus([model], 1))
