from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.batcher.learning import Arrivals, BatchTimes, Tail


def learned(*observed: tuple[int, float]) -> BatchTimes:
    times = BatchTimes()
    for size, seconds in observed:
        times.observe(size, seconds)
    return times


def test_nothing_is_expected_before_anything_is_known() -> None:
    assert BatchTimes().expected(8) == BatchTimes().cautious(8) == 0.0


def test_one_size_gives_its_mean() -> None:
    assert learned((8, 0.1), (8, 0.1)).expected(1) == pytest.approx(0.1)


def test_a_line_over_the_size_is_found() -> None:
    times = learned(*((size, 0.010 + 0.005 * size) for size in (1, 2, 4, 8) * 10))
    assert times.expected(6) == pytest.approx(0.040)
    assert times.cautious(6) == pytest.approx(0.040, rel=0.2)


def test_bigger_batches_never_seem_cheaper() -> None:
    assert learned((1, 0.2), (8, 0.1)).expected(100) <= 0.2


def test_scatter_makes_it_cautious() -> None:
    times = learned(*((4, 0.1 + 0.05 * (-1) ** turn) for turn in range(100)))
    assert times.expected(4) == pytest.approx(0.1, rel=0.05)
    assert 0.15 < times.cautious(4) < 0.25


def test_what_is_put_off_is_needed_but_no_scatter_of_what_was_executed() -> None:
    times = BatchTimes()
    for _ in range(100):
        times.observe(1, 0.1, executed=8, put_off=8)
    assert times.share == 16
    assert times.scatter == pytest.approx(0.0)


def test_a_change_is_known_after_some_batches() -> None:
    times = learned(*[(8, 0.1)] * 200, *[(8, 0.3)] * 100)
    assert times.expected(8) == pytest.approx(0.3, rel=0.15)


def test_a_batch_that_sat_out_a_restart_teaches_little_and_a_lasting_slowness_all() -> None:
    usual = [(8, 0.1)] * 50
    assert learned(*usual, *[(8, 12.0)] * 8).expected(8) == pytest.approx(0.1)
    assert learned(*usual, *[(8, 12.0)] * 60).expected(8) > 6


def test_a_larger_size_than_any_seen_is_expected_to_take_in_proportion() -> None:
    assert learned((2, 0.1), (2, 0.1)).expected(4) == pytest.approx(0.2)


def test_no_base_is_negative_however_the_scatter_tilts_the_line() -> None:
    times = learned((15, 0.1), (16, 0.3), (15, 0.1), (16, 0.3))
    assert 0 < times.expected(1) <= times.expected(16)
    assert times.expected(32) <= 2 * times.expected(16) + 1e-9


def test_the_largest_size_within_a_time_is_where_the_line_crosses_it() -> None:
    times = learned(*((size, 0.010 + 0.005 * size) for size in (1, 2, 4, 8) * 10))
    assert times.largest(0.040) == pytest.approx(6)
    assert times.largest(0.005) < 0
    assert learned((1, 0.1), (8, 0.1)).largest(0.2) == float("inf")
    assert learned((4, 0.1), (4, 0.1)).largest(0.2) == pytest.approx(8)


def test_no_base_is_known_from_sizes_that_are_all_alike() -> None:
    line = {size: 0.010 + 0.005 * size for size in (1, 2, 8)}
    assert learned(*line.items(), *line.items()).base == pytest.approx(0.010, rel=0.1)
    alike = learned((8, line[8]), (8, line[8]))
    assert alike.base == 0.0
    assert alike.more(line[8]) == pytest.approx(8)


def test_how_often_requests_come_is_known_after_two_and_those_that_come_together_count_once() -> None:
    arrivals = Arrivals()
    assert arrivals.expected(1.0) == 0.0
    for at in (5.0, 5.0, 5.0):
        arrivals.observe(at)
    assert arrivals.expected(1.0) == 0.0
    for at in (5.1, 5.1, 5.2):
        arrivals.observe(at)
    assert arrivals.expected(1.0) == pytest.approx(10)
    for number in range(400):
        arrivals.observe(6 + number / 1000)
    assert arrivals.expected(1.0) == pytest.approx(1000, rel=0.01), "older ones are forgotten"


def tail(*observed: float) -> Tail:
    found = Tail()
    for value in observed:
        found.observe(value)
    return found


def test_nothing_is_known_of_an_empty_tail() -> None:
    assert not tail()
    assert tail().most(0.99) == 0.0


def test_of_a_few_the_largest_counts_and_of_many_all_but_one_in_a_hundred() -> None:
    assert tail(3.0, 1.0, 2.0).most(0.99) == 3.0
    assert tail(*map(float, range(200))).most(0.99) == 197.0
    assert tail(*map(float, range(200))).most(0.5) == 99.0


@given(st.lists(st.floats(0, 9), min_size=1, max_size=600), st.floats(0.01, 1))
def test_a_tail_is_that_of_the_latest(values: list[float], share: float) -> None:
    latest = values[-256:]
    most = tail(*values).most(share)
    assert most in latest
    assert sum(value <= most for value in latest) >= share * len(latest) - 1e-6
    assert sum(value < most for value in latest) < share * len(latest) + 1e-6
