from __future__ import annotations

import pytest

from shoal.batcher.workload import CAUTION, TIMER_SECONDS, Workload
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


def test_the_margin_grows_with_what_came_later_than_expected() -> None:
    work = known(0.1)
    assert work.margin == pytest.approx(TIMER_SECONDS, abs=1e-4)
    for turn in range(400):
        work.add(float(turn), "s", "w", 4, INTERACTIVE)
        work.executed(turn + (0.09 if turn % 2 else 0.11), "s")
    assert work.margin == pytest.approx(CAUTION * 0.01 + TIMER_SECONDS, rel=0.2)


def test_the_wait_by_littles_law_counts_what_waits_at_workers() -> None:
    work = known(0.1)
    assert work.wait_behind(8) == 0.0
    work.add(0.0, "executes", "w", 4, INTERACTIVE)
    assert work.wait_behind(8) == pytest.approx(0.3)
    work.add(0.0, "waits", "w", 4, INTERACTIVE)
    assert work.wait_behind(8) == pytest.approx(0.4)
