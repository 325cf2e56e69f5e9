"""What models are served with, against sums done by hand: 10 ms for a batch of 1, 20 ms for one of 5."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from shoal.plan.pool import PlannedPool, Tuning
from shoal.plan.tuning import choices, settings, worker_processes
from shoal.simulate.costs import of_times

if TYPE_CHECKING:
    from conftest import Maker

DELAY = Tuning(closing="delay")


def test_a_delay_is_twice_what_a_full_batch_gathers_for_and_what_the_objective_leaves_at_most(load: Maker) -> None:
    pool = PlannedPool("p", (load("a", 1000.0),), DELAY)
    assert settings(pool)["a"].max_queue_delay_microseconds == 8000  # four more at 1,000/s, twice
    assert settings(pool, batchers=4)["a"].max_queue_delay_microseconds == 32_000  # each queue sees 250/s
    assert settings(pool, batchers=10)["a"].max_queue_delay_microseconds == 78_000  # 100 less 20 to execute, 2 of way
    assert not settings(pool)["a"].latency_objective_microseconds


def test_the_objective_holds_where_it_leaves_no_time_for_a_delay(load: Maker) -> None:
    tight = settings(PlannedPool("p", (load("a", 1000.0, objective=0.0215),), DELAY))["a"]
    assert (tight.max_queue_delay_microseconds, tight.latency_objective_microseconds) == (0, 21_500)


def test_in_shares_the_heaviest_model_has_what_is_best_and_others_their_part_of_it(load: Maker) -> None:
    costs = of_times({5: 20}, {4: 2.5})
    heavy, light, rare = (
        replace(load(name, rate), costs=costs) for name, rate in (("h", 4000.0), ("l", 2000.0), ("r", 40.0))
    )
    for instances, expected in (("each", (4, 4, 4)), ("shares", (4, 2, 1))):
        found = settings(PlannedPool("p", (heavy, light, rare), Tuning(instances=instances)))  # type: ignore[arg-type]
        assert tuple(one.instance_count for one in found.values()) == expected


def test_one_model_has_no_shares_to_try(load: Maker) -> None:
    assert len(list(choices(PlannedPool("p", (load("a"),))))) == 2
    assert len(set(choices(PlannedPool("p", (load("a"), load("b")))))) == 4


@pytest.mark.parametrize(("carried", "processes"), [(1500.0, 1), (250.0, 1), (249.0, 2), (100.0, 3), (1.0, 32)])
def test_processes_carry_what_a_gpu_takes_and_are_32_at_most(load: Maker, carried: float, processes: int) -> None:
    assert worker_processes(PlannedPool("p", (load("a", 1000.0),)), carried) == processes  # 250/s a GPU


def test_without_load_one_process_is_enough(load: Maker) -> None:
    assert worker_processes(PlannedPool("p", (load("a", 0.0),))) == 1
