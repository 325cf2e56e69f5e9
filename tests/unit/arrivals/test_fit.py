from __future__ import annotations

import math
import random
from itertools import pairwise
from statistics import fmean, stdev

import pytest

from shoal.arrivals.curve import Piece, along
from shoal.arrivals.fit import Window, fit, synthetic
from shoal.arrivals.processes import gamma, until
from shoal.errors import ConfigurationError


def test_a_window_has_the_rate_and_variation_of_its_gaps() -> None:
    times = list(until(gamma(40, 2, random.Random(1)), 100))
    first, second = fit(times, 60)
    inside = [after - before for before, after in pairwise((0.0, *times)) if after <= 60]
    assert (first.seconds, first.rate) == (60, len(inside) / 60)
    assert first.coefficient_of_variation == pytest.approx(stdev(inside) / fmean(inside))
    assert second.seconds == pytest.approx(times[-1] - 60)


def test_what_is_made_anew_has_the_same_rates_and_variations() -> None:
    pieces = [Piece(1_000, 50, 50, 3.0), Piece(1_000, 200, 200, 0.5), Piece(1_000, 20, 20, 1.0)]
    windows = fit(along(pieces, random.Random(2)), 1_000)
    again = fit(synthetic(windows, random.Random(3)), 1_000)
    assert len(again) == 3
    for piece, before, after in zip(pieces, windows, again, strict=True):
        assert before.rate == pytest.approx(piece.begin, rel=0.05)
        assert after.rate == pytest.approx(before.rate, rel=0.05)
        assert before.coefficient_of_variation == pytest.approx(piece.coefficient_of_variation, rel=0.05)
        assert after.coefficient_of_variation == pytest.approx(before.coefficient_of_variation, rel=0.05)


def test_a_window_without_arrivals_keeps_its_place() -> None:
    windows = fit([1.0, 2.0, 35.0], 10)
    assert [window.rate for window in windows] == pytest.approx([0.2, 0, 0, 0.2])
    assert sum(window.seconds for window in windows) == 35
    assert all(time <= 10 or time >= 30 for time in synthetic(windows, random.Random(1)))


def test_too_few_gaps_are_taken_for_poisson() -> None:
    assert fit([1.0, 1.1, 5.0], 10) == (Window(5.0, 3 / 5.0, 1.0),)


def test_an_arrival_at_a_border_belongs_to_the_window_that_ends() -> None:
    assert [(each.seconds, each.rate) for each in fit([5.0, 10.0, 20.0], 10)] == [(10, 0.2), (10, 0.1)]


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf])
def test_a_window_needs_a_length(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="expected more than 0 seconds"):
        fit([1.0], seconds)


@pytest.mark.parametrize("times", [[], [0.0, 0.0]])
def test_nothing_to_fit(times: list[float]) -> None:
    with pytest.raises(ConfigurationError, match="no arrivals to fit"):
        fit(times, 10)
