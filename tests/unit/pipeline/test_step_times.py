from __future__ import annotations

import pytest

from shoal.modelconfig.model import Task
from shoal.pipeline.steps import Step
from shoal.pipeline.times import FORGOTTEN_SECONDS, KEPT, MARGIN, MOST_CALLERS, PROBE_SECONDS, Lately, StepTimes, Times
from shoal.runtime.priority import Priority

LAST = Step("last", "m", Task.CLASSIFICATION)
SLOW = Step("slow", "m", Task.DETECTION, then=(LAST,))
QUICK = Step("quick", "m", Task.CLASSIFICATION)
FIRST = Step("first", "m", Task.DETECTION, then=(QUICK, SLOW))


def test_nineteen_of_twenty_took_no_longer() -> None:
    lately = Lately()
    assert lately.expected(0) == 0
    for number in range(1, 21):
        lately.observe(0, number / 10)
    assert lately.expected(0) == 1.9


def test_old_times_count_no_more() -> None:
    lately = Lately()
    lately.observe(0, 9)
    lately.observe(FORGOTTEN_SECONDS, 1)
    assert lately.expected(FORGOTTEN_SECONDS) == 9
    assert lately.expected(FORGOTTEN_SECONDS + 1) == 1
    assert lately.expected(2 * FORGOTTEN_SECONDS + 1) == 0


def test_of_many_times_the_latest_count() -> None:
    lately = Lately()
    for number in range(KEPT + 8):
        lately.observe(0, 1 if number > 7 else 9)
    assert lately.expected(0) == 1


def test_what_is_behind_is_the_slowest_way() -> None:
    times = StepTimes(FIRST)
    for step, seconds in ((QUICK, 0.3), (SLOW, 0.2), (LAST, 0.2), (FIRST, 5.0)):
        times.observe(step, 0, seconds)
    assert times.behind(FIRST, 0) == pytest.approx(MARGIN * 0.4)
    assert times.behind(SLOW, 0) == pytest.approx(MARGIN * 0.2)
    assert times.behind(QUICK, 0) == 0


def test_a_bad_estimate_shuts_nobody_out_for_good() -> None:
    times = StepTimes(FIRST)
    for _ in range(KEPT):
        times.observe(QUICK, 0, 3.0)
    now = PROBE_SECONDS
    assert times.reserve(now, 1.0) == (0, 0, True)
    assert times.reserve(now, 1.0) == (0, MARGIN * 3.0, False)
    assert times.reserve(1.5 * now, 1.0).probe is False
    assert times.reserve(2 * now, 1.0).probe is True
    times.observe(QUICK, 2 * now, 0.1, probe=True)  # it came back soon
    assert times.reserve(2 * now, 1.0) == (0, MARGIN * 0.1, False)


def test_while_pictures_come_through_nothing_is_tried_in_vain() -> None:
    times = StepTimes(FIRST)
    for number in range(KEPT):
        now = number * PROBE_SECONDS / 2
        times.observe(LAST, now, 3.0)
        assert times.reserve(now, 1.0) == (0, MARGIN * 3.0, False)
    times.observe(FIRST, now + PROBE_SECONDS, 0.1)  # without a box: of those behind it says nothing
    assert times.reserve(now + PROBE_SECONDS, 1.0).probe is True


def test_the_first_steps_time_counts_too() -> None:
    times = StepTimes(FIRST)
    times.observe(FIRST, 0, 0.5)
    times.observe(QUICK, 0, 0.2)
    assert times.reserve(0, 10.0) == (0.5, MARGIN * 0.2, False)


def test_a_probe_that_is_slow_or_a_picture_that_is_lucky_changes_little() -> None:
    times = StepTimes(FIRST)
    for _ in range(KEPT):
        times.observe(QUICK, 0, 3.0)
    times.observe(QUICK, 0, 2.0, probe=True)
    times.observe(QUICK, 0, 0.1)
    assert times.reserve(0, 1.0) == (0, MARGIN * 3.0, False)


def test_with_time_enough_nothing_is_a_probe() -> None:
    times = StepTimes(FIRST)
    times.observe(QUICK, 0, 0.3)
    assert times.reserve(PROBE_SECONDS, 1.0) == (0, MARGIN * 0.3, False)
    times.observe(QUICK, 0, 0.1)
    assert times.reserve(2 * PROBE_SECONDS, 1.0) == (0, MARGIN * 0.3, False)


def test_owners_and_priorities_have_times_of_their_own_and_are_not_kept_for_ever() -> None:
    times = Times(FIRST)
    alice = times.of("alice", Priority.INTERACTIVE)
    alice.observe(QUICK, 0, 5)
    assert times.of("bob", Priority.INTERACTIVE).behind(FIRST, 0) == 0
    assert times.of("alice", Priority.BULK).behind(FIRST, 0) == 0
    assert times.of("alice", Priority.INTERACTIVE) is alice
    for number in range(MOST_CALLERS):
        times.of(f"owner-{number}", Priority.INTERACTIVE)
    assert times.of("alice", Priority.INTERACTIVE) is not alice
