from __future__ import annotations

import math
import random

import pytest

from shoal.errors import ConfigurationError
from shoal.runtime.percentile import percentile
from shoal.simulate.spreads import Constant, Empirical, LogNormal, Sum, Uniform


def draws(spread: Constant | Empirical | LogNormal | Sum | Uniform, count: int = 20_000) -> list[float]:
    source = random.Random(1)
    return sorted(spread.draw(source) for _ in range(count))


def test_a_log_normal_goes_through_its_percentiles() -> None:
    found = draws(LogNormal.through(0.003, 0.020))
    assert percentile(found, 0.5) == pytest.approx(0.003, rel=0.03)
    assert percentile(found, 0.99) == pytest.approx(0.020, rel=0.06)
    assert sum(found) / len(found) == pytest.approx(LogNormal.through(0.003, 0.020).mean, rel=0.03)


def test_a_histogram_gives_back_its_buckets() -> None:
    found = draws(Empirical.of_buckets({0.01: 50.0, 0.1: 90.0, math.inf: 100.0}))
    assert sum(value <= 0.01 for value in found) / len(found) == pytest.approx(0.5, abs=0.02)
    assert sum(value <= 0.055 for value in found) / len(found) == pytest.approx(0.7, abs=0.02)
    assert found[-1] == 0.1  # nobody knows how much longer the last tenth took


def test_samples_give_back_their_percentiles() -> None:
    found = draws(Empirical.of_samples([0.4, 0.1, 0.2, 0.3, 0.5]))
    assert [percentile(found, share) for share in (0.25, 0.5, 0.75)] == pytest.approx([0.2, 0.3, 0.4], abs=0.01)
    assert 0.1 <= found[0] <= found[-1] <= 0.5
    assert draws(Empirical.of_samples([0.2]), 3) == [0.2] * 3


def test_a_sum_draws_each() -> None:
    assert draws(Sum((Constant(0.1), Constant(0.2))), 2) == pytest.approx([0.3, 0.3])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Empirical.of_samples([]), "0 measured times"),
        (lambda: Empirical.of_samples([0.1, -0.1]), "0 or more"),
        (lambda: Empirical.of_samples([math.nan]), "finite"),
        (lambda: Empirical.of_buckets({math.inf: 3.0}), "without finite buckets"),
        (lambda: Empirical.of_buckets({0.1: 0.0, math.inf: 0.0}), "nothing was counted"),
        (lambda: Empirical.of_buckets({0.1: 5.0, 0.2: 4.0, math.inf: 9.0}), "counts sink"),
        (lambda: LogNormal.through(0.2, 0.1), "p50 <= p99"),
    ],
)
def test_what_is_no_distribution_is_refused(make: object, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        make()  # type: ignore[operator]
