from __future__ import annotations

import pytest

from shoal.modelconfig.model import Task
from shoal.pipeline.steps import Step
from shoal.pipeline.times import (
    DOUBT,
    FORGOTTEN_SECONDS,
    MARGIN,
    MOST_CALLERS,
    MOST_MARGIN,
    PROBE_SECONDS,
    StepTimes,
    Times,
)
from shoal.runtime.priority import Priority

LAST = Step("last", "m", Task.CLASSIFICATION)
SLOW = Step("slow", "m", Task.DETECTION, then=(LAST,))
QUICK = Step("quick", "m", Task.CLASSIFICATION)
FIRST = Step("first", "m", Task.DETECTION, then=(QUICK, SLOW))
MANY = 100


@pytest.fixture
def times() -> StepTimes:
    return StepTimes(FIRST)


def test_what_is_behind_is_the_slowest_way(times: StepTimes) -> None:
    for step, seconds in ((QUICK, 0.3), (SLOW, 0.2), (LAST, 0.2), (FIRST, 5.0)):
        times.observe(step, 0, seconds, 1)
    assert times.behind(FIRST, 1) == pytest.approx(MARGIN * 0.4)
    assert times.behind(SLOW, 1) == pytest.approx(MARGIN * 0.2)
    assert times.behind(QUICK, 1) == 0


def test_time_goes_with_the_number_in_flight(times: StepTimes) -> None:
    for _ in range(MANY):
        for pictures in (4, 8, 12, 16):
            times.observe(QUICK, 0, 0.1 + 0.05 * pictures, pictures)
    for pictures in (4, 9, 15):
        times.in_flight = pictures
        assert times.reserve(0, 10.0).behind == pytest.approx(MARGIN * (0.1 + 0.05 * (pictures + 1)), rel=0.02)


def test_nobody_is_refused_for_being_more_than_there_were_before(times: StepTimes) -> None:
    """Engines may well take many at once: what came one by one says nothing of a burst."""
    for _ in range(MANY):
        times.observe(QUICK, 0, 0.4, 1)
    times.in_flight = 50
    assert times.reserve(0, 1.0).behind == pytest.approx(MARGIN * 0.4)
    times.observe(QUICK, 0, 0.9, 50)
    assert times.reserve(0, 1.0).behind > 1.0
    times.in_flight = 2
    for _ in range(MANY):
        times.observe(QUICK, 0, 0.4, 1)
    times.in_flight = 50  # the many are long gone
    assert times.reserve(0, 1.0).behind < 1.0


def test_where_times_scatter_more_is_kept(times: StepTimes) -> None:
    for number in range(MANY):
        times.observe(QUICK, 0, 0.3 if number % 2 else 0.5, 1)
    assert times.behind(FIRST, 1) == pytest.approx(MARGIN * (0.4 + 2 * 0.1), rel=0.05)


def test_where_answers_are_late_more_is_kept(times: StepTimes) -> None:
    times.observe(QUICK, 0, 0.4, 1)
    for number in range(MANY * 10):
        times.ended(late=number % 10 == 0)
    assert times.behind(FIRST, 1) == pytest.approx((MARGIN + 0.1 * DOUBT) * 0.4, rel=0.05)
    for _ in range(MANY):
        times.ended(late=True)
    assert times.behind(FIRST, 1) == pytest.approx(MOST_MARGIN * 0.4)
    for _ in range(10 * MANY):
        times.ended(late=False)
    assert times.behind(FIRST, 1) == pytest.approx(MARGIN * 0.4)


def test_without_news_nothing_is_known(times: StepTimes) -> None:
    times.observe(QUICK, 0, 9.0, 1)
    assert times.reserve(FORGOTTEN_SECONDS, 100.0).behind == MARGIN * 9.0
    assert times.reserve(FORGOTTEN_SECONDS + 1, 100.0).behind == 0


def test_a_bad_estimate_shuts_nobody_out_for_good(times: StepTimes) -> None:
    times.observe(QUICK, 0, 3.0, 1)
    now = PROBE_SECONDS
    assert times.reserve(now, 1.0) == (0, 0, True)
    assert times.reserve(now, 1.0) == (0, pytest.approx(MARGIN * 3.0), False)
    assert times.reserve(1.5 * now, 1.0).probe is False
    assert times.reserve(2 * now, 1.0).probe is True
    times.observe(QUICK, 2 * now, 0.1, 1, probe=True)  # it came back soon
    assert times.reserve(2 * now, 1.0) == (0, pytest.approx(MARGIN * 0.1), False)


def test_while_pictures_come_through_nothing_is_tried_in_vain(times: StepTimes) -> None:
    for number in range(64):
        now = number * PROBE_SECONDS / 2
        times.observe(LAST, now, 3.0, 1)
        assert times.reserve(now, 1.0) == (0, pytest.approx(MARGIN * 3.0), False)
    times.observe(FIRST, now + PROBE_SECONDS, 0.1, 1)  # without a box: of those behind it says nothing
    assert times.reserve(now + PROBE_SECONDS, 1.0).probe is True


def test_the_first_steps_time_counts_too(times: StepTimes) -> None:
    times.observe(FIRST, 0, 0.5, 1)
    times.observe(QUICK, 0, 0.2, 1)
    assert times.reserve(0, 10.0) == (MARGIN * 0.5, MARGIN * 0.2, False)


def test_with_time_enough_nothing_is_a_probe(times: StepTimes) -> None:
    times.observe(QUICK, 0, 0.3, 1)
    assert times.reserve(PROBE_SECONDS, 1.0) == (0, MARGIN * 0.3, False)


def test_owners_and_priorities_have_times_of_their_own_and_are_not_kept_for_ever() -> None:
    times = Times(FIRST)
    alice = times.of("alice", Priority.INTERACTIVE)
    alice.observe(QUICK, 0, 5, 1)
    assert times.of("bob", Priority.INTERACTIVE).behind(FIRST) == 0
    assert times.of("alice", Priority.BULK).behind(FIRST) == 0
    assert times.of("alice", Priority.INTERACTIVE) is alice
    for number in range(MOST_CALLERS):
        times.of(f"owner-{number}", Priority.INTERACTIVE)
    assert times.of("alice", Priority.INTERACTIVE) is not alice
