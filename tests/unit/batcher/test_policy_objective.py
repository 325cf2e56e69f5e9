from __future__ import annotations

from dataclasses import replace

import pytest

from shoal.modelconfig.batching import BatchingSettings
from shoal.runtime.priority import Priority
from tests.support.policy_bench import CHEAP, DEAR, Bench

OBJECTIVE = BatchingSettings(max_batch_size=32, max_queue_delay_microseconds=1, latency_objective_microseconds=100_000)


def test_a_batch_closes_as_late_as_its_objective_allows() -> None:
    bench = Bench(OBJECTIVE)
    bench.learn(CHEAP)
    bench.permit("s")
    start = bench.now
    bench.arrive(1)
    bench.pass_time(0.05)
    bench.arrive(9)
    assert "s" not in bench.closed
    at = bench.policy.wake_at
    assert at - start == pytest.approx(0.095 - 0.007, abs=0.004)
    assert at - start < 0.095 - 0.007
    bench.pass_time(0.1)
    assert bench.closed == {"s": "objective"}
    assert len(bench.sent["s"]) == 10


def test_a_full_batch_goes_at_once() -> None:
    bench = Bench(OBJECTIVE)
    bench.learn(CHEAP)
    bench.permit("s")
    bench.arrive(32)
    assert bench.closed == {"s": "preferred"}


def test_an_objective_shorter_than_a_batch_of_one_sends_at_once() -> None:
    bench = Bench(replace(OBJECTIVE, latency_objective_microseconds=3_000))
    bench.learn(CHEAP)
    bench.permit("s")
    bench.arrive(2)
    assert bench.closed == {"s": "objective"}


def test_what_is_late_anyway_goes_with_all_that_come_soon() -> None:
    bench = Bench(replace(OBJECTIVE, latency_objective_microseconds=3_000))
    bench.learn(CHEAP)
    for _ in range(100):  # without a permit: it learns that one comes every 0.1 ms
        bench.arrive(1)
        bench.pass_time(0.0001)
    bench.permit("s")
    bench.permit("t")
    assert bench.closed["s"] == "preferred"
    for stream in "uvwx":
        bench.permit(stream)
    open_one = next(stream for stream in "tuvwx" if stream not in bench.closed)
    for _ in range(5):
        bench.arrive(1)
        bench.pass_time(0.00005)
    assert open_one not in bench.closed, "an eighth of a batch's time brings several more"
    bench.pass_time(0.001)
    assert bench.closed[open_one] == "objective"
    assert len(bench.sent[open_one]) >= 6


def test_what_is_late_anyway_goes_at_once_where_nobody_is_expected() -> None:
    bench = Bench(replace(OBJECTIVE, latency_objective_microseconds=3_000))
    bench.learn(CHEAP)
    for stream in "stu":
        bench.permit(stream)
        bench.arrive(1)
        assert bench.closed[stream] == "objective"
        bench.pass_time(0.1)


def test_what_is_late_anyway_goes_at_once_where_company_saves_little() -> None:
    bench = Bench(replace(OBJECTIVE, latency_objective_microseconds=3_000))
    bench.learn(DEAR)
    bench.permit("busy")
    bench.arrive(32)
    for number in range(100):
        bench.permit(f"s{number}")
        bench.arrive(1)
        bench.pass_time(0.0001)
    assert all(len(bench.sent[stream]) == 1 for stream in bench.closed if stream.startswith("s"))


def test_before_any_time_is_known_half_of_the_objective_is_waited() -> None:
    bench = Bench(OBJECTIVE)
    bench.permit("s")
    bench.arrive(1)
    assert bench.policy.wake_at == pytest.approx(0.05)


def test_deadlines_hold_all_the_same() -> None:
    bench = Bench(OBJECTIVE)
    bench.learn(CHEAP)
    bench.permit("s")
    (request,) = bench.arrive(1)
    request.deadline = bench.now + 0.02
    bench.permit("t")
    bench.do(bench.policy.lost(bench.now, "s", [], [request]))
    bench.pass_time(0.02)
    assert bench.closed == {"t": "deadline"}


def test_an_idle_worker_is_no_reason_to_wait_where_company_saves_nothing() -> None:
    bench = Bench(OBJECTIVE)
    bench.learn(DEAR)
    bench.permit("s")
    bench.arrive(6)
    assert bench.closed == {"s": "enough"}


def test_a_batch_takes_no_more_than_its_promise_allows_and_the_others_go_in_one_of_their_own() -> None:
    bench = Bench(OBJECTIVE)
    bench.learn(DEAR)
    bench.permit("s")
    bench.permit("t", worker="other")
    bench.arrive(1)
    bench.pass_time(0.06)
    bench.arrive(10)
    assert bench.closed["s"] == "objective"
    assert 2 <= len(bench.sent["s"]) <= 6
    assert len(bench.sent["s"]) + len(bench.sent["t"]) == 11


def test_the_next_batch_opens_at_the_fullest_worker_that_keeps_the_promise() -> None:
    bench = Bench(OBJECTIVE)
    bench.learn(CHEAP)
    for worker in "cab":
        for number in range(2):
            bench.permit(f"{worker}{number}", worker=worker)
    for _ in range(3):
        bench.arrive(32)
    assert list(bench.sent) == ["a0", "a1", "b0"]


def test_a_worker_that_is_too_busy_for_the_promise_is_left_alone() -> None:
    bench = Bench(replace(OBJECTIVE, latency_objective_microseconds=20_000))
    bench.learn(CHEAP)
    for stream in ("a0", "a1", "b0"):
        bench.permit(stream, worker=stream[0])
    bench.arrive(32)
    bench.arrive(32)
    assert list(bench.sent) == ["a0", "b0"]


@pytest.mark.parametrize(("scatter", "streams"), [(0.0, ["a0", "a1"]), (0.04, ["a0", "b0"])])
def test_where_times_scatter_no_batch_waits_behind_another_one(scatter: float, streams: list[str]) -> None:
    bench = Bench(replace(OBJECTIVE, max_batch_size=8))
    for number in range(64):
        bench.arrive(8)
        bench.permit(f"learn-{number}", worker="teacher")
        bench.now += 0.03 + (scatter if number % 2 else -scatter) / 2
        bench.policy.executed(bench.now, f"learn-{number}")
    bench.sent.clear()
    for stream in ("a0", "a1", "b0"):
        bench.permit(stream, worker=stream[0])
    bench.arrive(8)
    bench.arrive(8)
    assert list(bench.sent) == streams


def test_without_an_objective_an_idle_worker_comes_first() -> None:
    bench = Bench(BatchingSettings(max_batch_size=32))
    bench.learn(CHEAP)
    for stream in ("a0", "a1", "b0"):
        bench.permit(stream, worker=stream[0])
    bench.arrive(32)
    bench.arrive(32)
    assert list(bench.sent) == ["a0", "b0"]


def test_workers_without_a_name_are_taken_for_different_ones() -> None:
    bench = Bench(replace(OBJECTIVE, max_batch_size=8))
    for turn in range(20):
        streams = [f"{turn}-{number}" for number in range(2)]
        for stream in streams:
            bench.arrive(8)
            bench.permit(stream, worker="")
        bench.pass_time(0.05)
        for stream in streams:  # side by side: neither waited for the other
            bench.policy.executed(bench.now, stream)
    start = bench.now
    bench.permit("s", worker="")
    bench.arrive(4)
    assert bench.policy.wake_at - start == pytest.approx(0.095 - 0.05, abs=0.006)


def test_while_bulk_waits_no_batch_is_held_back_for_company() -> None:
    bench = Bench(OBJECTIVE)
    bench.learn(CHEAP)
    bench.arrive(100, Priority.BULK)
    bench.permit("s")
    bench.arrive(1)
    assert bench.closed == {"s": "bulk"}
    assert bench.sizes("s")[0] == 1
    assert bench.sizes("s")[1] >= 28


@pytest.mark.parametrize("late", [0.0, 0.006])
def test_a_timer_that_is_late_is_woken_earlier_next_time(late: float) -> None:
    bench = Bench(OBJECTIVE)
    bench.learn(CHEAP)
    waits = []
    for stream in "st":
        bench.permit(stream)
        bench.arrive(4)
        waits.append(bench.policy.wake_at - bench.now)
        bench.now = bench.policy.wake_at + late
        bench.do(bench.policy.tick(bench.now))
        assert bench.closed[stream] == "objective"
        bench.now += 0.005 + 4 * 0.0002
        bench.policy.executed(bench.now, stream)
    assert waits[0] - waits[1] == pytest.approx(late, abs=1e-4)


def test_the_margin_is_a_part_of_the_objective_at_most() -> None:
    bench = Bench(OBJECTIVE)
    bench.learn(CHEAP)
    for turn in range(8):
        bench.permit(f"s{turn}")
        bench.arrive(32)
        bench.now += 1.0
        bench.policy.executed(bench.now, f"s{turn}")
    bench.permit("t")
    bench.arrive(1)
    assert bench.policy.wake_at - bench.now == pytest.approx(0.1 * (0.95 - 0.2) - 0.0052, abs=0.002)
