from __future__ import annotations

import pytest

from shoal.batcher import rates
from shoal.batcher.rates import Rates, TokenBucket


def test_a_seconds_worth_comes_at_once_and_then_at_the_rate() -> None:
    bucket = TokenBucket(10, now=0.0)
    assert bucket.take(0.0, 32) == 10
    assert bucket.take(0.0, 1) == 0
    assert bucket.seconds_to_next(0.0) == pytest.approx(0.1)
    assert bucket.take(0.55, 32) == 5
    assert bucket.take(100.0, 32) == 10


def test_over_a_minute_no_more_pass_than_the_rate_allows() -> None:
    bucket = TokenBucket(7.5, now=0.0)
    passed = sum(bucket.take(step / 100, 3) for step in range(6000))
    assert passed == pytest.approx(60 * 7.5 + 8, abs=1)


def test_a_rate_below_one_lets_one_through_now_and_then() -> None:
    bucket = TokenBucket(0.5, now=0.0)
    assert [bucket.take(now, 1) for now in (0.0, 1.0, 2.0, 3.0, 4.0)] == [1, 0, 1, 0, 1]


def test_calls_that_passed_elsewhere_count_but_owe_no_more_than_a_second() -> None:
    bucket = TokenBucket(10, now=0.0)
    bucket.spend(0.0, 4)
    assert bucket.take(0.0, 32) == 6
    bucket.spend(0.0, 1000)
    assert bucket.seconds_to_next(0.0) == pytest.approx(1.1)
    assert bucket.take(1.2, 32) == 2


def test_a_key_keeps_its_bucket_until_its_rate_changes() -> None:
    known = Rates()
    bucket = known.of("key-1", 5, 0.0)
    assert known.of("key-1", 5, 1.0) is bucket
    assert known.of("key-2", 5, 1.0) is not bucket
    assert known.of("key-1", 6, 1.0) is not bucket


def test_buckets_that_are_full_again_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MAX_BUCKETS", 3)
    known = Rates()
    busy = known.of("busy", 1, 0.0)
    busy.take(0.0, 1)
    for n in range(50):
        known.of(f"key-{n}", 1, 0.1)
    assert known.of("busy", 1, 0.2) is busy
    assert len(known._buckets) <= 4
