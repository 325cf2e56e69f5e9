"""The search against a simulation that is a formula: a pool keeps its objective from a number of GPUs on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.plan.placements import Placement, compared
from shoal.plan.pool import PlannedPool
from shoal.plan.search import bound, fewest, spread, timetable
from shoal.plan.trial import Bench
from shoal.simulate.scenario import ModelOutcome, Outcome, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Maker


def scripted(enough: Callable[[str, float], int], seen: list[Scenario] | None = None) -> Bench:
    """Trials in which a model's p99 is 1 ms with so many GPUs for its load, and 1 s with fewer."""

    def run(scenario: Scenario) -> Outcome:
        if seen is not None:
            seen.append(scenario)
        models = {}
        for load in scenario.loads:
            pool = next(pool for pool in scenario.pools if load.model in pool.models)
            rate = sum(1 for _ in load.times) / scenario.seconds
            lost = len(scenario.faults) > 0
            good = pool.replicas - lost >= enough(load.model, rate)
            models[load.model] = ModelOutcome(100, 100, 0, 0, 0, 1.0, 1.0, [0.001 if good else 1.0] * 100)
        return Outcome(models, {pool.name: 0.5 for pool in scenario.pools}, {}, 0)

    return Bench(run=run, requests=1000)


@pytest.mark.parametrize("number", [1, 2, 3, 7, 10, 18])
def test_the_fewest_are_found_of_each_pool_by_itself(load: Maker, number: int) -> None:
    placement = Placement("p", (PlannedPool("a", (load("a"),)), PlannedPool("b", (load("b"),))))
    found = fewest(scripted(lambda name, _: number if name == "a" else 2), placement)
    assert found is not None
    assert found.gpus == {"a": number, "b": 2}


@pytest.mark.parametrize(("quick", "long", "found"), [(3, 6, 6), (9, 4, 5), (3, 3, 5)])
def test_a_quick_trial_tells_where_to_look_and_whole_and_long_ones_decide(
    load: Maker, quick: int, long: int, found: int
) -> None:
    def enough(scenario: Scenario) -> int:
        return long if scenario.seed == 2 else quick if scenario.seconds < 5 else 5

    def run(scenario: Scenario) -> Outcome:
        good = scenario.pools[0].replicas >= enough(scenario)
        outcome = ModelOutcome(100, 100, 0, 0, 0, 1.0, 1.0, [0.001 if good else 1.0] * 100)
        return Outcome({"a": outcome}, {"a": 0.5}, {}, 0)

    sized = fewest(Bench(run=run, requests=1000), Placement("p", (PlannedPool("a", (load("a"),)),)))
    assert sized is not None
    assert sized.total == found


def test_the_way_to_serve_that_needs_fewest_gpus_is_chosen(load: Maker) -> None:
    def run(scenario: Scenario) -> Outcome:
        delayed = all(model.settings.max_queue_delay_microseconds for model in scenario.models)
        good = scenario.pools[0].replicas >= (4 if delayed else 5)
        outcome = ModelOutcome(100, 100, 0, 0, 0, 1.0, 1.0, [0.001 if good else 1.0] * 100)
        return Outcome({"a": outcome}, {"a": 0.5}, {}, 0)

    sized = fewest(Bench(run=run, requests=1000), Placement("p", (PlannedPool("a", (load("a"),)),)))
    assert sized is not None
    assert (sized.total, sized.placement.pools[0].tuning.closing) == (4, "delay")


def test_what_no_number_of_gpus_helps_is_none(load: Maker) -> None:
    assert fewest(scripted(lambda *_: 10**6), Placement("p", (PlannedPool("a", (load("a"),)),))) is None


def test_a_server_lost_needs_one_more(load: Maker) -> None:
    found = fewest(scripted(lambda *_: 3), Placement("p", (PlannedPool("a", (load("a"),)),)), lose_server=True)
    assert found is not None
    assert found.total == 4


def test_the_search_begins_at_the_bound(load: Maker) -> None:
    seen: list[Scenario] = []
    fewest(scripted(lambda *_: 1, seen), Placement("p", (PlannedPool("a", (load("a", 1000.0),)),)))
    assert min(scenario.pools[0].replicas for scenario in seen) == 4  # 250/s a GPU


def test_a_timetable_follows_the_load_and_never_passes_the_peak(load: Maker) -> None:
    placement = Placement("p", (PlannedPool("a", (load("a", 0.0, 500.0, 1000.0),)),))
    bench = scripted(lambda _, rate: 6 if rate > 700 else 4 if rate > 300 else 1)
    peak = fewest(bench, placement)
    assert peak is not None
    # 1.5 times its bound: 1 at least without load, 3 for two, which the trial raises to 4, 6 at the peak.
    assert timetable(bench, placement, peak) == (1, 4, 6)


def test_what_there_is_goes_to_pools_in_proportion(load: Maker) -> None:
    placement = Placement("p", (PlannedPool("a", (load("a"),)), PlannedPool("b", (load("b"),))))
    needed = scripted(lambda *_: 1).trial(placement, {"a": 6, "b": 3})
    assert spread(needed, 20) == {"a": 13, "b": 7}
    assert spread(needed, 2) == {"a": 1, "b": 1}


def test_each_placement_is_compared_once(load: Maker) -> None:
    two = [load("a"), load("b")]
    assert [len(one.pools) for one in compared(two, 80)] == [1, 1, 1, 2]
    assert [len(one.pools) for one in compared(two, 1.5)] == [2, 2, 2]  # they don't fit: dedicated is the only way
    three = [load("a", 900.0), load("b"), load("c")]
    assert [one.name for one in compared(three, 80)][-1] == "a dedicated, general for the others"
    assert compared([load("a", 1.0, 2.0)], 80)[-1].by_hour
    assert bound(compared(two, 80)[3]) == 2


def test_a_server_of_each_pool_is_lost(load: Maker) -> None:
    seen: list[Scenario] = []
    bench = scripted(lambda *_: 1, seen)
    placement = Placement("p", (PlannedPool("a", (load("a"),)), PlannedPool("b", (load("b"),))))
    Bench(2, 1, 1000, run=bench.run).trial(placement, {"a": 3, "b": 4}, lose_server=True)
    # Servers of two GPUs: a has 0 and half of 1, b the other half, 2, and half of 3.
    assert [fault.target for fault in seen[-1].faults] == ["0", "2"]
