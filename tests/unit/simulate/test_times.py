from __future__ import annotations

from fractions import Fraction
from itertools import islice, pairwise
from statistics import fmean, stdev

import pytest

from shoal.simulate.times import ByHour, Divisible, Recorded, Steady

DAY = [100.0, 300.0, *[0.0] * 22]


@pytest.mark.parametrize("times", [Steady(200.0, 1.0, "1"), ByHour(DAY, 10.0, 1.0, "1")])
@pytest.mark.parametrize("by_chance", [False, True])
def test_parts_have_their_share_of_the_requests(times: Divisible, *, by_chance: bool) -> None:
    part = times.part(Fraction(1, 4), 0, by_chance=by_chance)
    assert times.expected(20.0) == 4000.0
    assert sum(time < 20.0 for time in islice(part, 1100)) == pytest.approx(1000, rel=0.1)
    assert isinstance(part, Divisible)
    assert part.expected(20.0) == pytest.approx(1000.0)


def test_parts_differ_and_each_is_the_same_each_time() -> None:
    times = Steady(200.0, 2.0, "1")
    first, second = (times.part(Fraction(1, 8), number, by_chance=False) for number in (0, 1))
    assert list(islice(first, 9)) == list(islice(first, 9)) != list(islice(second, 9))


def test_a_curve_counts_begun_hours_and_days() -> None:
    times = ByHour(DAY, 10.0, 1.0, "1")
    assert times.expected(15.0) == pytest.approx(2500.0)
    assert times.expected(260.0) == pytest.approx(4000.0 + 1000.0 + 3000.0)


@pytest.mark.parametrize("by_chance", [False, True])
@pytest.mark.parametrize("variation", [0.5, 1.0, 3.0])
def test_the_gaps_of_a_part_vary_as_those_of_every_fourth_or_of_one_in_four(
    variation: float, *, by_chance: bool
) -> None:
    """Against the requests of the whole, of which they are picked."""
    share = Fraction(1, 4)
    whole = list(islice(Steady(100.0, variation, "1"), 80_000))
    picked = Recorded(whole).part(share, 0, by_chance=by_chance)
    part = Steady(100.0, variation, "2").part(share, 0, by_chance=by_chance)
    wanted, found = (_variation(list(islice(times, 19_000))) for times in (picked, part))
    assert found == pytest.approx(wanted, rel=0.05)


def _variation(times: list[float]) -> float:
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return stdev(gaps) / fmean(gaps)


def test_parts_of_a_trace_are_all_of_it() -> None:
    trace = Recorded([float(number) for number in range(12)])
    parts = [list(trace.part(Fraction(1, 3), number, by_chance=False)) for number in range(3)]
    assert sorted(time for part in parts for time in part) == trace.times
    assert list(trace.part(Fraction(2, 3), 0, by_chance=False)) == [0.0, 2.0, 3.0, 5.0, 6.0, 8.0, 9.0, 11.0]
    assert trace.expected(3.5) == 4
