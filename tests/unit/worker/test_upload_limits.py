from __future__ import annotations

import pytest

from shoal.errors import Overloaded
from shoal.worker.upload_limits import AHEAD, UploadLimits


def test_without_a_rate_there_is_no_limit() -> None:
    limits = UploadLimits()
    for _ in range(100):
        limits.take("k", 0, 1000, now=0)


def test_what_a_call_overdraws_is_paid_before_the_next() -> None:
    limits = UploadLimits()
    limits.take("k", 10, 50, now=0)  # 10 in hand, 40 ahead
    with pytest.raises(Overloaded) as caught:
        limits.take("k", 10, 1, now=4)
    assert caught.value.retry_after_seconds == pytest.approx(0.1)
    limits.take("k", 10, 1, now=4.1)


def test_in_the_long_run_no_more_are_given_than_the_rate() -> None:
    limits, given = UploadLimits(), 0
    for step in range(1000):  # 100 s
        try:
            limits.take("k", 5, 64, now=step / 10)
        except Overloaded:
            continue
        given += 64
    assert 5 * 100 - 64 <= given <= 5 * 100 + 64


@pytest.mark.parametrize(("rate", "count"), [(0.001, AHEAD + 1), (1, 1000), (100, 101)])
def test_too_many_at_once_are_refused_and_cost_nothing(rate: float, count: int) -> None:
    limits = UploadLimits()
    with pytest.raises(Overloaded, match="uploads a call"):
        limits.take("k", rate, count, now=0)
    limits.take("k", rate, 1, now=0)


def test_rest_earns_a_seconds_worth_and_no_more() -> None:
    limits = UploadLimits()
    limits.take("k", 100, 100, now=0)
    limits.take("k", 100, 100, now=1000)
    with pytest.raises(Overloaded):
        limits.take("k", 100, 1, now=1000)


def test_keys_pay_for_themselves() -> None:
    limits = UploadLimits()
    limits.take("a", 1, 64, now=0)
    limits.take("b", 1, 64, now=0)
