from __future__ import annotations

import pytest

from shoal.errors import Overloaded
from shoal.worker.allowance import AHEAD, Allowances


def test_without_a_rate_there_is_no_limit() -> None:
    allowances = Allowances()
    for _ in range(100):
        allowances.take("k", 0, 1000, now=0)


def test_what_a_call_overdraws_is_paid_before_the_next() -> None:
    allowances = Allowances()
    allowances.take("k", 10, 50, now=0)  # 10 in hand, 40 ahead
    with pytest.raises(Overloaded) as caught:
        allowances.take("k", 10, 1, now=4)
    assert caught.value.retry_after_seconds == pytest.approx(0.1)
    allowances.take("k", 10, 1, now=4.1)


def test_in_the_long_run_no_more_are_given_than_the_rate() -> None:
    allowances, given = Allowances(), 0
    for step in range(1000):  # 100 s
        try:
            allowances.take("k", 5, 64, now=step / 10)
        except Overloaded:
            continue
        given += 64
    assert 5 * 100 - 64 <= given <= 5 * 100 + 64


@pytest.mark.parametrize(("rate", "count"), [(0.001, AHEAD + 1), (1, 1000), (100, 101)])
def test_too_many_at_once_are_refused_and_cost_nothing(rate: float, count: int) -> None:
    allowances = Allowances()
    with pytest.raises(Overloaded, match="uploads a call"):
        allowances.take("k", rate, count, now=0)
    allowances.take("k", rate, 1, now=0)


def test_rest_earns_a_seconds_worth_and_no_more() -> None:
    allowances = Allowances()
    allowances.take("k", 100, 100, now=0)
    allowances.take("k", 100, 100, now=1000)
    with pytest.raises(Overloaded):
        allowances.take("k", 100, 1, now=1000)


def test_keys_pay_for_themselves() -> None:
    allowances = Allowances()
    allowances.take("a", 1, 64, now=0)
    allowances.take("b", 1, 64, now=0)
