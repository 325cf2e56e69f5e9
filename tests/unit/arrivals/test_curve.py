from __future__ import annotations

import math
import random
from itertools import islice, pairwise
from statistics import fmean, pstdev, pvariance

import pytest

from shoal.arrivals.curve import Piece, along, by_hour, growth
from shoal.arrivals.processes import until
from shoal.errors import ConfigurationError

DAY = [float(10 + hour) for hour in range(24)]


def counts(times: list[float], width: float, number: int) -> list[int]:
    found = [0] * number
    for time in times:
        found[int(time / width)] += 1
    return found


def test_each_hour_has_its_rate() -> None:
    times = list(until(by_hour(DAY, random.Random(1), hour_seconds=100), 48 * 100))
    assert times == sorted(times)
    for hour, number in enumerate(counts(times, 100, 48)):  # the day comes again
        expected = 100 * DAY[hour % 24]
        assert abs(number - expected) < 4 * math.sqrt(expected)


def test_a_linear_curve_goes_from_one_hour_to_the_next() -> None:
    """Between 0 at hour 0 and 100 at hour 1 the k-th tenth expects 10 * (k + 0.5) a second, and back again."""
    times = list(until(by_hour([0, 100], random.Random(2), between="linear", hour_seconds=1_000), 2_000))
    found = counts(times, 100, 20)
    rising = [100 * 10 * (tenth + 0.5) for tenth in range(10)]
    for number, expected in zip(found, rising + rising[::-1], strict=True):
        assert abs(number - expected) < 4 * math.sqrt(expected)


@pytest.mark.parametrize(("begin", "end"), [(2.0, 8.0), (8.0, 2.0), (0.0, 5.0), (5.0, 0.0), (3.0, 3.0)])
def test_a_time_is_where_the_integral_of_the_rate_has_come_to(begin: float, end: float) -> None:
    piece = Piece(10.0, begin, end)
    for share in (0.0, 0.01, 0.5, 0.999, 1.0):
        time = piece.after(share * piece.expected)
        reached = begin * time + (end - begin) / 10.0 * time**2 / 2
        assert reached == pytest.approx(share * piece.expected, abs=1e-9)


def test_thinning_gives_the_same_process() -> None:
    """Another way to it (Lewis and Shedler 1979): a Poisson process of the peak, each arrival kept by chance."""

    def thinned(source: random.Random) -> int:
        time, number = 0.0, 0
        while (time := time + source.expovariate(30)) < 10:
            number += source.random() < (10 + 2 * time) / 30
        return number

    mine = [len(list(along([Piece(10, 10, 30)], random.Random(seed)))) for seed in range(1_000)]
    theirs = [thinned(random.Random(seed)) for seed in range(1_000, 2_000)]
    assert fmean(mine) == pytest.approx(fmean(theirs), rel=0.01)
    assert pvariance(mine) == pytest.approx(200, rel=0.15)  # Poisson: as the mean


def test_bursts_keep_the_rate_of_their_hour() -> None:
    times = list(until(by_hour([20, 60], random.Random(5), 3.0, hour_seconds=20_000), 40_000))
    quiet, busy = counts(times, 20_000, 2)
    assert quiet == pytest.approx(400_000, rel=0.03)
    assert busy == pytest.approx(1_200_000, rel=0.03)
    gaps = [after - before for before, after in pairwise(times) if after < 20_000]
    assert pstdev(gaps) / fmean(gaps) == pytest.approx(3, rel=0.05)


def test_a_quiet_hour_has_no_arrivals_and_none_are_lost() -> None:
    times = list(until(by_hour([50, 0, 50], random.Random(6), hour_seconds=100), 300))
    assert not [time for time in times if 100 <= time < 200]
    assert len(times) == pytest.approx(10_000, rel=0.04)


def test_an_arrival_may_be_many_hours_away() -> None:
    first = next(by_hour([0.001, 0], random.Random(1), hour_seconds=1))
    assert first > 100


def test_pieces_end_and_so_do_their_arrivals() -> None:
    assert max(along([Piece(5, 100, 100), Piece(5, 0, 0)], random.Random(1))) < 5


def test_the_same_seed_gives_the_same_arrivals() -> None:
    once, again = (list(islice(by_hour(DAY, random.Random(9), 2.0), 100)) for _ in range(2))
    assert once == again


@pytest.mark.parametrize(
    ("rates", "told"),
    [
        ([1, None, 2], "hour 1 of the curve has no rate"),
        ([1, 2, -3], "hour 2 of the curve: rate -3"),
        ([math.nan], "hour 0 of the curve: rate nan"),
        ([math.inf], "hour 0 of the curve: rate inf"),
        ([], "no hour with arrivals"),
        ([0, 0], "no hour with arrivals"),
    ],
)
def test_a_curve_with_a_fault_is_refused_at_once(rates: list[float | None], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        by_hour(rates, random.Random(1))
    with pytest.raises(ConfigurationError, match=told):
        growth(rates, 0.1, 1)


@pytest.mark.parametrize("wrong", [{"coefficient_of_variation": -1}, {"hour_seconds": 0}, {"hour_seconds": math.nan}])
def test_a_wrong_argument_is_refused_at_once(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        by_hour(DAY, random.Random(1), **wrong)  # type: ignore[arg-type]


def test_growth_is_compound() -> None:
    assert growth([10, 20], 0.1, 2) == pytest.approx((12.1, 24.2))
    assert growth([10, 20], -0.5, 1) == (5, 10)
    assert growth([10, 20], 0.21, 0.5) == pytest.approx((11, 22))


@pytest.mark.parametrize("wrong", [-1, 5, math.nan])
def test_a_growth_that_is_no_share_is_refused(wrong: float) -> None:
    with pytest.raises(ConfigurationError, match=r"0\.1 is 10 %"):
        growth([1], wrong, 1)
    with pytest.raises(ConfigurationError, match="months"):
        growth([1], 0.1, math.nan)
