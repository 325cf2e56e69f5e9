from __future__ import annotations

from collections.abc import Callable

import pytest

from shoal.plan.bound import PlannedLoad
from shoal.simulate.costs import of_times

Maker = Callable[..., PlannedLoad]


@pytest.fixture
def load() -> Maker:
    """A model: 10 ms for a batch of 1, 20 ms for one of 5; twice the work with two at once or more."""

    def make(
        name: str = "m", *rates: float, memory: float = 1, objective: float = 0.1, prepare: float = 0.0
    ) -> PlannedLoad:
        costs = of_times({1: 10, 5: 20}, {})
        return PlannedLoad(name, costs, memory, objective, prepare, rates or (100.0,))

    return make
