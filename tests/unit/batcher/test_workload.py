from __future__ import annotations

import pytest

from shoal.batcher.workload import TIMER_SECONDS, Workload
from shoal.runtime.priority import Priority

INTERACTIVE, BULK = Priority


def known(seconds: float, work: Workload[str] | None = None) -> Workload[str]:
    """Batches of 4 take ``seconds`` there."""
    work = work or Workload()
    for turn in range(20):
        work.add(turn - 20.0, "learn", "w", 4, INTERACTIVE)
        work.executed(turn - 20.0 + seconds, "learn")
    return work


def test_the_service_time_is_learned_without_the_wait_behind_another_batch() -> None:
    work: Workload[str] = Workload()
    for turn in range(10):
        work.add(turn, "first", "w", 4, INTERACTIVE)
        work.add(turn + 0.01, "second", "w", 4, INTERACTIVE)
        work.executed(turn + 0.1, "first")
        work.executed(turn + 0.2, "second")
    assert work.times.expected(4) == pytest.approx(0.1)


def test_a_batch_elsewhere_is_no_wait() -> None:
    work = known(0.1)
    work.add(0.0, "here", "w", 4, INTERACTIVE)
    assert work.free_at(0.04, "w", INTERACTIVE) == pytest.approx(0.1)
    assert work.free_at(0.04, "other", INTERACTIVE) == 0.04


def test_as_many_batches_start_at_once_as_a_worker_has_instances() -> None:
    work = known(0.1)
    work.instances = 2
    work.add(0.0, "a", "w", 4, INTERACTIVE)
    assert work.free_at(0.01, "w", INTERACTIVE) == 0.01
    work.add(0.05, "b", "w", 4, INTERACTIVE)
    assert work.free_at(0.06, "w", INTERACTIVE) == pytest.approx(0.1)
    work.add(0.06, "c", "w", 4, INTERACTIVE)
    assert work.free_at(0.07, "w", INTERACTIVE) == pytest.approx(0.15)


def test_interactive_batches_pass_bulk_ones_that_wait_and_none_passes_the_one_that_executes() -> None:
    work = known(0.1)
    work.add(0.0, "executes", "w", 4, BULK)
    work.add(0.0, "waits", "w", 4, BULK)
    assert work.free_at(0.0, "w", INTERACTIVE) == pytest.approx(0.1)
    assert work.free_at(0.0, "w", BULK) == pytest.approx(0.2)


def test_a_batch_that_overtook_another_teaches_its_own_time_and_so_does_the_other() -> None:
    work = known(0.1)
    for turn in range(100):
        now = 10.0 * turn
        work.add(now, "first", "w", 4, BULK)
        work.add(now, "bulk", "w", 4, BULK)
        work.executed(now + 0.1, "first")  # now "bulk" seems to execute
        work.add(now + 0.1, "interactive", "w", 4, INTERACTIVE)
        work.executed(now + 0.2, "interactive")
        work.executed(now + 0.3, "bulk")
    assert work.times.expected(4) == pytest.approx(0.1)
    assert len(work) == 0


def test_an_overdue_batch_is_expected_at_any_moment() -> None:
    work = known(0.1)
    work.add(0.0, "late", "w", 4, INTERACTIVE)
    assert work.free_at(0.7, "w", INTERACTIVE) == 0.7


def test_what_is_removed_makes_room_and_teaches_nothing() -> None:
    work = known(0.1)
    work.add(0.0, "stalled", "w", 4, INTERACTIVE)
    work.add(0.0, "next", "w", 4, INTERACTIVE)
    work.remove(5.0, "stalled")
    work.remove(5.0, "stalled")
    assert work.free_at(5.0, "w", INTERACTIVE) == pytest.approx(5.1)
    assert work.times.expected(4) == pytest.approx(0.1)


def test_the_margin_is_what_all_but_one_in_a_hundred_batches_were_late_at_most() -> None:
    work = known(0.1)
    assert work.margin == pytest.approx(TIMER_SECONDS)
    for turn in range(256):
        work.add(float(turn), "s", "w", 4, INTERACTIVE)
        seconds = 5.0 if turn % 128 == 0 else 0.13 if turn % 16 == 1 else 0.1
        work.executed(turn + seconds, "s")
    assert work.margin == pytest.approx(0.03 + TIMER_SECONDS, abs=0.006)


def test_what_came_early_is_no_margin() -> None:
    work = known(0.1)
    for turn in range(100):
        work.add(float(turn), "s", "w", 4, INTERACTIVE)
        work.executed(turn + 0.1 * 0.99**turn, "s")
    assert work.margin == pytest.approx(TIMER_SECONDS)


def test_a_batch_that_closed_late_was_as_late_as_its_answer() -> None:
    work = known(0.1)
    work.add(0.02, "s", "w", 4, INTERACTIVE, due=0.0)
    work.executed(0.12, "s")
    assert work.margin == pytest.approx(0.02 + TIMER_SECONDS)


def test_preparation_is_what_a_batch_took_beside_its_time_at_the_engine() -> None:
    work: Workload[str] = Workload()
    assert not work.preparation
    work.add(0.0, "silent", "w", 4, INTERACTIVE)
    work.executed(0.1, "silent")
    work.add(1.0, "bulk", "w", 4, BULK)
    work.executed(1.1, "bulk", 0.02)
    assert not work.preparation
    work.add(2.0, "s", "w", 4, INTERACTIVE)
    work.executed(2.1, "s", 0.07)
    assert work.preparation.most(1.0) == pytest.approx(0.03)
    work.add(3.0, "another clock", "w", 4, INTERACTIVE)
    work.executed(3.1, "another clock", 5.0)
    assert work.preparation.most(0.5) == 0.0


def test_the_wait_counts_what_executes_half_what_waits_at_workers_and_full_batches() -> None:
    work = known(0.1)
    work.largest = 4
    assert work.wait_behind(8) == 0.0
    work.add(0.0, "executes", "w", 4, INTERACTIVE)
    assert work.wait_behind(8) == pytest.approx(0.05 + 2 * 0.1 + 0.1)
    work.add(0.0, "waits", "w", 4, INTERACTIVE)
    assert work.wait_behind(8) == pytest.approx(0.05 + 0.1 + 2 * 0.1 + 0.1)
    work.add(0.0, "elsewhere", "v", 4, INTERACTIVE)
    assert work.wait_behind(8) == pytest.approx((0.05 + 0.1 + 2 * 0.1) / 2 + 0.1)


def test_what_is_ahead_is_not_rated_by_the_small_batch_that_executes_just_now() -> None:
    work: Workload[str] = Workload()
    work.largest = 16
    for number, (size, seconds) in enumerate([(1, 0.16), (16, 0.31)] * 32):
        work.add(float(number), "s", "w", size, INTERACTIVE)
        work.executed(number + seconds, "s")
    work.add(100.0, "one", "w", 1, INTERACTIVE)
    assert work.wait_behind(6) == pytest.approx(0.16 / 2 + 0.16 + 0.01 * 6, abs=0.01), "all seven go together"
    assert work.wait_behind(6) < 6 * 0.16
    assert work.wait_behind(16) == pytest.approx(0.16 / 2 + 0.31 + 0.16, abs=0.01)
