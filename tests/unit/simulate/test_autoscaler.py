from __future__ import annotations

import pytest

from shoal.simulate.autoscaler import wanted


@pytest.mark.parametrize(
    ("busy", "ready", "replicas", "asked"),
    [
        (4 * 0.9, 4, 4, 6),  # ceil(4 * 0.9 / 0.7)
        (4 * 0.76, 4, 4, 4),  # within a tenth
        (4 * 0.35, 4, 4, 2),
        (2 * 1.0, 2, 4, 4),  # those that start count as idle: 2 / 4 / 0.7 is less than 1
        (2 * 1.0, 2, 3, 3),
        (4 * 1.0, 4, 5, 6),  # 4 / 5 / 0.7 of 5
        (0.0, 0, 3, 3),
        (10 * 0.7, 10, 10, 10),
    ],
)
def test_as_kubernetes_says(busy: float, ready: int, replicas: int, asked: int) -> None:
    assert wanted(0.7, busy, ready, replicas) == asked
