from __future__ import annotations

import itertools

import pytest

from shoal.errors import ConfigurationError
from shoal.profile.observer import Observer, Pace


def run(latencies: list[float], pace: Pace, *, batch: int = 8, concurrency: int = 1) -> Observer:
    """One caller; the last latency repeats until it is done."""
    observer, now = Observer(0.0, batch, concurrency, pace), 0.0
    for latency in itertools.chain(latencies, itertools.repeat(latencies[-1], 100_000)):
        if observer.done:
            return observer
        observer.finished(now, now + latency)
        now += latency
    raise AssertionError


def test_a_steady_load_is_measured_after_two_stretches() -> None:
    measured = run([0.01], Pace(1.0, 10.0)).round()
    assert measured.settled
    assert measured.images_per_s == pytest.approx(800)
    assert measured.warm_up_s == pytest.approx(0.5, abs=0.03)
    assert measured.batches == pytest.approx(100, abs=1)
    assert measured.p50_ms == measured.p99_ms == pytest.approx(10)


def test_a_load_that_gets_faster_is_waited_for() -> None:
    falling = [0.1 * 0.97**number for number in range(80)]
    measured = run([*falling, 0.01], Pace(1.0, 60.0)).round()
    assert measured.settled
    assert measured.warm_up_s > 2
    assert measured.images_per_s > 600


def test_a_load_that_never_settles_is_measured_at_the_bound_and_says_so() -> None:
    swinging = [latency for _ in range(50) for latency in [0.02] * 13 + [0.06] * 5]
    measured = run(swinging, Pace(1.0, 2.0)).round()
    assert not measured.settled
    assert measured.warm_up_s == pytest.approx(2.0, abs=0.06)


def test_no_warm_up_measures_from_the_first_batch_on() -> None:
    measured = run([0.5], Pace(1.0, 0.0)).round()
    assert (measured.batches, measured.seconds, measured.images_per_s) == (2, 1.0, 16.0)
    assert not measured.settled


def test_slow_batches_make_long_stretches() -> None:
    # A stretch has two batches of each caller: 2 s here, and two such are needed.
    assert run([1.0], Pace(3.0, 60.0)).round().warm_up_s == pytest.approx(4.0)


def test_p99_is_a_latency_that_was_measured() -> None:
    measured = run([0.01] * 60 + [0.09, 0.05] + [0.01], Pace(2.0, 0.0)).round()
    assert measured.batches > 100
    assert (measured.p50_ms, measured.p99_ms) == (pytest.approx(10), pytest.approx(50))


@pytest.mark.parametrize("pace", [Pace(0.0), Pace(float("nan")), Pace(1.0, -1.0), Pace(1.0, float("inf"))])
def test_a_pace_makes_sense(pace: Pace) -> None:
    with pytest.raises(ConfigurationError, match="expected seconds"):
        pace.check()
