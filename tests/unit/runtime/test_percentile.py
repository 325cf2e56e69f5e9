from __future__ import annotations

import pytest

from shoal.runtime.percentile import milliseconds, percentile


@pytest.mark.parametrize(("quantile", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_nearest_rank(quantile: float, expected: float) -> None:
    assert percentile(range(1, 101), quantile) == expected


def test_a_percentile_of_nothing_is_unknown() -> None:
    assert percentile([], 0.5) is None


def test_milliseconds_are_told_to_the_microsecond_and_nothing_stays_nothing() -> None:
    assert milliseconds(0.0123456) == 12.346
    assert milliseconds(0.0) == 0.0
    assert milliseconds(None) is None
