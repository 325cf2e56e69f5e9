from __future__ import annotations

import json
import random

import pytest

from shoal.errors import ConfigurationError
from shoal.simulate.fit import Fit, Stages, fit


def answer(size: int, compute: float, *, way: float = 0.004, alone: bool = True) -> Stages:
    return Stages(0.01 + 0.002 + 0.003 + compute + way, 0.01, 0.002, 0.003, compute, size, alone)


def test_costs_are_the_mean_of_each_size_and_jitter_is_what_batches_vary_by() -> None:
    found = fit([answer(1, 0.010)] * 3 + [answer(4, 0.018), answer(4, 0.020), answer(4, 0.022)])
    assert found.costs.sizes == (1, 4)
    assert found.costs.times == pytest.approx((0.010, 0.020))
    assert found.jitter.bounds == pytest.approx((0.9, 1.0, 1.0, 1.0, 1.0, 1.1))
    assert found.prepare.bounds == pytest.approx((0.005,) * 6)
    assert found.answers == {1: 3, 4: 3}


def test_the_way_is_that_of_calls_that_were_alone() -> None:
    answers = [answer(1, 0.01)] * 3 + [answer(8, 0.02, way=0.5, alone=False)] * 9
    assert fit(answers).way == pytest.approx(0.004)


def test_a_size_with_few_answers_is_not_known() -> None:
    found = fit([answer(1, 0.01)] * 3 + [answer(2, 9.0)] * 2)
    assert found.costs.sizes == (1,)


@pytest.mark.parametrize("answers", [[], [answer(1, 0.01)] * 2, [answer(1, 0.01, alone=False)] * 9])
def test_too_few_answers_are_refused(answers: list[Stages]) -> None:
    with pytest.raises(ConfigurationError, match=f"{len(answers)} answers, .* too few"):
        fit(answers)


def test_batches_that_were_measured_beside_others_slow_each_other_no_further() -> None:
    assert fit([answer(1, 0.01)] * 3, instances=2).costs.rate(1, 2) == pytest.approx(2 * 100)


def test_a_distribution_keeps_its_slowest_hundredth() -> None:
    found = fit([answer(1, 0.1 if number >= 990 else 0.01) for number in range(1000)]).jitter
    source = random.Random(1)
    drawn = sorted(found.draw(source) for _ in range(4000))
    assert len(found.bounds) == 100
    assert drawn[3900] < 1.0
    assert 6.0 < drawn[-1] <= 9.2


def test_what_is_written_reads_the_same() -> None:
    found = fit([answer(1, 0.010)] * 3 + [answer(4, 0.018), answer(4, 0.020), answer(4, 0.022)])
    again = Fit.parse(json.loads(json.dumps(found.figures())))
    assert again.figures() == found.figures()
    assert again.costs.seconds(2) == pytest.approx(found.costs.seconds(2))
