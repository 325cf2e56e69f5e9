from __future__ import annotations

from dataclasses import replace

import pytest

from shoal.batcher.workload import TIMER_SECONDS
from shoal.batching.fair_queue import Queued
from shoal.modelconfig.batching import BatchingSettings
from shoal.runtime.priority import Priority
from tests.support.policy_bench import BULK, CHEAP, DEAR, INTERACTIVE, Bench

SETTINGS = BatchingSettings(max_batch_size=32)


def test_a_bulk_request_never_takes_an_interactive_permit_nor_the_other_way_round() -> None:
    bench = Bench(SETTINGS)
    bench.permit("i")
    bench.arrive(3, BULK)
    assert bench.sent == {}
    bench.permit("b", BULK)
    assert bench.sizes("b") == (0, 3)
    bench.permit("b2", BULK)
    bench.arrive(2)
    bench.arrive(2)
    assert bench.sizes("i") == (2, 0)
    assert bench.policy.queued == 2


def test_bulk_fills_a_batch_of_interactive_ones_where_it_costs_hardly_more() -> None:
    bench = Bench(SETTINGS)
    bench.learn(CHEAP)
    bench.arrive(100, BULK)
    bench.permit("i")
    bench.arrive(3)
    assert bench.sizes("i") == (3, 29)
    assert bench.closed == {"i": "bulk"}


def test_bulk_does_not_fill_where_each_request_takes_its_time() -> None:
    bench = Bench(SETTINGS)
    bench.learn(DEAR)
    bench.arrive(100, BULK)
    bench.permit("i")
    bench.arrive(3)
    assert bench.sizes("i") == (3, 0)


def test_nothing_fills_before_any_time_is_known() -> None:
    bench = Bench(SETTINGS)
    bench.arrive(100, BULK)
    bench.permit("i")
    bench.arrive(3)
    assert bench.sizes("i") == (3, 0)


def test_bulk_fills_up_to_a_preferred_size_or_not_at_all_from_one() -> None:
    bench = Bench(replace(SETTINGS, preferred_batch_size=(4, 16, 32)))
    bench.learn(CHEAP)
    bench.arrive(14, BULK)
    bench.permit("i")
    bench.arrive(3)
    assert bench.sizes("i") == (3, 13)
    bench.now += 1
    bench.policy.executed(bench.now, "i")
    bench.permit("i2")
    bench.arrive(4)
    assert bench.sizes("i2") == (4, 0)


def test_filling_keeps_the_deadlines_of_those_who_were_there() -> None:
    bench = Bench(SETTINGS)
    bench.learn(CHEAP)
    bench.arrive(100, BULK)
    bench.permit("i")
    tight = [Queued("a", bench.now, bench.now + 0.009)]
    bench.do(bench.policy.arrived(bench.now, tight))
    interactive, bulk = bench.sizes("i")
    assert interactive == 1
    assert 0 < bulk <= 19  # 5 ms + 20 * 0.2 ms


def test_while_bulk_keeps_its_worker_busy_an_interactive_batch_stays_open_for_those_who_come() -> None:
    bench = Bench(SETTINGS)
    bench.learn(CHEAP)
    bench.permit("b", BULK)
    bench.arrive(32 + 100, BULK)
    assert bench.closed == {"b": "preferred"}
    bench.permit("i")
    bench.arrive(1)
    bench.pass_time(0.002)
    bench.arrive(2)
    assert "i" not in bench.closed
    bench.pass_time(0.011)
    assert bench.closed["i"] == "bulk"
    assert bench.sizes("i")[0] == 3


@pytest.mark.parametrize(
    ("line", "preparation", "lead"),
    [
        (CHEAP, 0.0005, 0.0005),
        (CHEAP, 0.004, 0.004),
        ((0.020, 0.0002), 0.0195, 0.0195),
        (CHEAP, None, 2 / 3 * 0.0114),
    ],
    ids=["little to prepare", "more to prepare", "hardly anything else", "older worker"],
)
def test_an_interactive_batch_closes_so_early_that_it_is_prepared_when_its_worker_is_free(
    line: tuple[float, float], preparation: float | None, lead: float
) -> None:
    bench = Bench(SETTINGS)
    bench.learn(line, preparation)
    bench.permit("b", BULK)
    bench.arrive(32 + 100, BULK)
    free_at = bench.now + line[0] + 32 * line[1]
    bench.permit("i")
    bench.arrive(1)
    assert free_at - bench.policy.wake_at == pytest.approx(lead, abs=2 * TIMER_SECONDS)
    assert free_at - bench.policy.wake_at >= lead - 1e-4
    bench.pass_time(line[0] + 32 * line[1])
    assert bench.closed["i"] == "bulk"


def test_a_few_batches_with_a_picture_that_hangs_close_no_other_much_earlier() -> None:
    bench = Bench(SETTINGS)
    bench.learn(CHEAP, 0.0005)
    for number in range(4):
        bench.permit(f"hangs{number}")
        bench.arrive(32)
        bench.now += 0.1114
        bench.policy.executed(bench.now, f"hangs{number}", 0.0109)
    bench.permit("b", BULK)
    bench.arrive(32 + 100, BULK)
    bench.permit("i")
    bench.arrive(1)
    assert "i" not in bench.closed
    assert bench.policy.wake_at - bench.now == pytest.approx(0.0114 / 3, abs=2 * TIMER_SECONDS)


def test_a_full_queue_refuses_bulk_first_and_then_the_owner_with_most() -> None:
    bench = Bench(replace(SETTINGS, max_queue_size=10))
    light = bench.arrive(5, owner="light")
    few, many = bench.arrive(1, BULK, "few"), bench.arrive(4, BULK, "many")
    bench.arrive(2, owner="new")
    assert bench.rejected == [many[3], many[2]]
    bench.arrive(4, owner="heavy")
    assert set(map(id, bench.rejected[2:5])) == set(map(id, [*few, *many[:2]]))
    assert bench.rejected[5:] == [light[-1]]
    (late,) = bench.arrive(1, BULK)
    assert bench.rejected[-1] is late
    assert bench.policy.queued == 10


def test_under_interactive_overload_bulk_still_uses_every_bulk_permit() -> None:
    bench = Bench(replace(SETTINGS, max_queue_size=10))
    bench.arrive(10)
    bench.permit("b", BULK)
    bench.arrive(1, BULK)
    assert bench.sizes("b") == (0, 1)


def test_a_bulk_request_waits_for_all_interactive_ones_and_is_refused_for_it() -> None:
    bench = Bench(BatchingSettings(max_batch_size=4))
    bench.learn((0.1, 0.0))
    bench.permit("busy")
    bench.arrive(4 + 16)
    soon = bench.now + 0.4
    (bulk,) = [Queued("b", bench.now, soon, priority=BULK)]
    bench.do(bench.policy.arrived(bench.now, [bulk]))
    assert bench.rejected == [bulk]
    (interactive,) = [Queued("b", bench.now, soon)]
    bench.do(bench.policy.arrived(bench.now, [interactive]))
    assert bench.rejected == [bulk]


@pytest.mark.parametrize("priority", Priority)
def test_suspects_of_both_kinds_go_alone_on_permits_of_their_own(priority: Priority) -> None:
    bench = Bench(SETTINGS)
    bench.permit("s", priority)
    requests = bench.arrive(2, priority)
    bench.do(bench.policy.lost(bench.now, "s", requests))
    bench.permit("other", INTERACTIVE if priority is BULK else BULK)
    assert "other" not in bench.sent
    bench.permit("alone", priority)
    assert bench.sent["alone"] == requests[:1]
    assert bench.closed["alone"] == "alone"


def test_what_filled_a_batch_that_no_worker_began_goes_back_to_its_own_level() -> None:
    bench = Bench(SETTINGS)
    bench.learn(CHEAP)
    bench.arrive(40, BULK)
    bench.permit("i")
    bench.arrive(3)
    everyone = bench.sent["i"]
    bench.do(bench.policy.lost(bench.now, "i", [], everyone))
    bench.permit("b", BULK)
    assert bench.sizes("b") == (0, 32)
    bench.permit("i2")
    assert bench.sizes("i2")[0] == 3


def test_those_of_one_message_who_come_too_late_are_refused_and_the_others_are_not() -> None:
    bench = Bench(BatchingSettings(max_batch_size=4))
    bench.learn((0.1, 0.0))
    bench.permit("busy")
    bench.arrive(4)
    requests = [Queued("a", bench.now, bench.now + 0.25) for _ in range(16)]
    bench.do(bench.policy.arrived(bench.now, requests))
    assert bench.rejected == requests[8:], "half of what executes, a full batch and its own take 0.25 s"
    assert bench.policy.queued == 8
