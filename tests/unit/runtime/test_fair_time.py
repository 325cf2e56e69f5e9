from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.runtime.fair_time import FairTime, UrgentTime
from shoal.runtime.precedence import BULK_SHARE
from shoal.runtime.priority import Priority


def serve(times: FairTime[tuple[str, float]], seconds: float) -> Counter[str]:
    """What each owner got of so much time, one item after another; an item says how long it takes."""
    had: Counter[str] = Counter()
    while sum(had.values()) < seconds and (turn := times.take()) is not None:
        times.ended(turn, turn.item[1])
        had[turn.owner] += turn.item[1]
    return had


def filled(**owners: tuple[int, float]) -> FairTime[tuple[str, float]]:
    times: FairTime[tuple[str, float]] = FairTime()
    for owner, (count, each) in owners.items():
        for number in range(count):
            times.put(owner, (f"{owner}{number}", each))
    return times


def test_owners_get_equal_time_however_long_their_items_take() -> None:
    had = serve(filled(slow=(100, 1.5), quick=(10_000, 0.01)), 30)
    assert had["slow"] == pytest.approx(15, abs=1.5)
    assert had["quick"] == pytest.approx(15, abs=1.5)


def test_a_newcomer_waits_for_no_backlog() -> None:
    times = filled(slow=(100, 1.5))
    serve(times, 6)
    times.put("quick", ("q", 0.01))
    turn = times.take()
    assert turn is not None
    assert turn.owner == "quick"


def test_one_at_a_time_does_not_get_ahead() -> None:
    """Who asks for the next slow one when the last is done has its debt still."""
    times = filled(quick=(10_000, 0.01))
    had: Counter[str] = Counter()
    times.put("slow", ("s", 1.0))
    while sum(had.values()) < 20:
        turn = times.take()
        assert turn is not None
        times.ended(turn, turn.item[1])
        had[turn.owner] += turn.item[1]
        if turn.owner == "slow":
            times.put("slow", ("s", 1.0))
    assert had["slow"] == pytest.approx(10, abs=1.5)


def test_who_was_away_does_not_catch_up_for_it() -> None:
    times = filled(busy=(1000, 0.1), other=(1, 0.1))
    serve(times, 20)
    for number in range(100):
        times.put("other", (f"o{number}", 0.1))
    assert serve(times, 10)["busy"] == pytest.approx(5, abs=0.3)


def test_turns_that_run_together_are_charged_before_they_end() -> None:
    times = filled(a=(4, 1.0), b=(4, 1.0))
    turns = [times.take() for _ in range(4)]
    assert Counter(turn.owner for turn in turns if turn) == {"a": 2, "b": 2}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())))
def test_each_item_has_one_turn_in_its_owners_order(steps: list[tuple[str, bool]]) -> None:
    times: FairTime[tuple[str, int]] = FairTime()
    put: list[tuple[str, int]] = []
    taken: list[tuple[str, int]] = []
    for number, (owner, take) in enumerate(steps):
        put.append((owner, number))
        times.put(owner, put[-1])
        if take and (turn := times.take()) is not None:
            taken.append(turn.item)
            times.ended(turn, 0.1)
    while (turn := times.take()) is not None:
        taken.append(turn.item)
    assert sorted(taken) == sorted(put)
    for owner in "abc":
        assert [item for item in taken if item[0] == owner] == [item for item in put if item[0] == owner]
    assert len(times) == 0


def test_what_was_discarded_has_no_turn() -> None:
    times: FairTime[str] = FairTime()
    times.put("a", "x")
    assert times.waiting("a") == 1
    assert times.discard("a", "x")
    assert not times.discard("a", "x")
    assert not times.discard("b", "x")
    assert times.take() is None


def test_owners_who_are_owed_nothing_are_forgotten() -> None:
    times: FairTime[int] = FairTime()
    for number in range(2000):
        times.put(f"owner{number}", number)
        turn = times.take()
        assert turn is not None
        times.ended(turn, 0.0)
    assert len(times._of) < 300


class Job(NamedTuple):
    owner: str
    number: int
    priority: Priority


def test_interactive_items_go_first_and_owners_share_within_a_priority() -> None:
    times: UrgentTime[Job] = UrgentTime()
    for number in range(6):
        for owner in ("a", "b"):
            for priority in (Priority.BULK, Priority.INTERACTIVE):
                times.put(owner, Job(owner, number, priority))
    dropped = Job("a", 5, Priority.BULK)
    assert times.discard("a", dropped)
    assert not times.discard("a", dropped)
    assert (len(times), times.waiting("a", Priority.BULK), times.waiting("a", Priority.INTERACTIVE)) == (23, 5, 6)
    order: list[Job] = []
    while (turn := times.take()) is not None:
        order.append(turn.item)
        times.ended(turn, 1.0)
    bulk = [place for place, job in enumerate(order) if job.priority is Priority.BULK]
    assert bulk[:2] == [BULK_SHARE - 1, 13]
    for priority in Priority:
        owners = [job.owner for job in order if job.priority is priority]
        assert abs(owners[:6].count("a") - owners[:6].count("b")) <= 1
