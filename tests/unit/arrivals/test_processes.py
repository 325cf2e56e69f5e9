from __future__ import annotations

import math
import random
from itertools import islice, pairwise
from statistics import fmean, pstdev, pvariance
from typing import TYPE_CHECKING

import pytest

from shoal.arrivals.processes import gamma, poisson, until
from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence


def gaps(times: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise((0.0, *times))]


def share_shorter(times: Sequence[float], seconds: float) -> float:
    found = gaps(times)
    return sum(gap < seconds for gap in found) / len(found)


def test_the_gaps_of_a_poisson_process_are_exponential() -> None:
    times = list(islice(poisson(50, random.Random(1)), 50_000))
    assert fmean(gaps(times)) == pytest.approx(1 / 50, rel=0.02)
    assert pstdev(gaps(times)) == pytest.approx(1 / 50, rel=0.02)
    for seconds in (0.005, 0.02, 0.06):
        assert share_shorter(times, seconds) == pytest.approx(1 - math.exp(-50 * seconds), abs=0.01)


def test_counts_of_a_poisson_process_vary_as_much_as_their_mean() -> None:
    counts = [0] * 2_000
    for time in until(poisson(20, random.Random(2)), len(counts)):
        counts[int(time)] += 1
    assert fmean(counts) == pytest.approx(20, rel=0.02)
    assert pvariance(counts) == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize("variation", [0.5, 1.0, 2.0, 4.0])
def test_gaps_vary_as_they_are_told(variation: float) -> None:
    found = gaps(list(islice(gamma(50, variation, random.Random(3)), 200_000)))
    assert fmean(found) == pytest.approx(1 / 50, rel=0.03)
    assert pstdev(found) / fmean(found) == pytest.approx(variation, rel=0.03)


def test_gamma_gaps_of_half_the_variation_are_erlang() -> None:
    """1 / 0.5² = 4 exponential steps: P(gap < t) is the Poisson probability of 4 or more steps in t."""
    times = list(islice(gamma(10, 0.5, random.Random(4)), 50_000))
    for seconds in (0.05, 0.1, 0.2):
        mean = 40 * seconds
        fewer = sum(math.exp(-mean) * mean**steps / math.factorial(steps) for steps in range(4))
        assert share_shorter(times, seconds) == pytest.approx(1 - fewer, abs=0.01)


def test_no_variation_is_a_metronome() -> None:
    assert list(islice(gamma(4, 0, random.Random(1)), 3)) == [0.25, 0.5, 0.75]


def test_the_same_seed_gives_the_same_arrivals() -> None:
    once, again = (list(islice(gamma(4, 3, random.Random(9)), 100)) for _ in range(2))
    assert once == again
    assert once != list(islice(gamma(4, 3, random.Random(10)), 100))


@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused_at_once(rate: float) -> None:
    with pytest.raises(ConfigurationError, match="expected more than 0 arrivals"):
        poisson(rate, random.Random(1))
    with pytest.raises(ConfigurationError, match="expected more than 0 arrivals"):
        gamma(rate, 2, random.Random(1))


@pytest.mark.parametrize("variation", [-0.1, math.nan, 31, math.inf])
def test_a_variation_that_no_gaps_have_is_refused_at_once(variation: float) -> None:
    with pytest.raises(ConfigurationError, match="expected 0 to 30"):
        gamma(1, variation, random.Random(1))
