from __future__ import annotations

import pytest

from shoal.runtime.percentile import percentile


@pytest.mark.parametrize(("quantile", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_nearest_rank(quantile: float, expected: float) -> None:
    assert percentile(range(1, 101), quantile) == expected


def test_a_percentile_of_nothing_is_unknown() -> None:
    assert percentile([], 0.5) is None
