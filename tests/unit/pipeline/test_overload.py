"""Too many pictures, under virtual time: handler, times, rooms, the batchers' policies, and simulated engines."""

from __future__ import annotations

import math
from functools import cache

import pytest

from shoal.runtime.priority import Priority
from shoal.simulate.curve import CostCurve
from support.virtual_pipeline import CLASSIFIER, DETECTOR, Load, Played, Service

SECONDS, WARM_UP = 6.0, 3.0
SLOW = {DETECTOR: CostCurve(0.02, 0.012), CLASSIFIER: CostCurve(0.01, 0.006)}
"""Of which a picture takes a third of its deadline, however few there are."""


@cache
def peak(boxes: int = 5) -> float:
    """The most pictures a second, without a deadline."""
    return play(Service(), Load(in_flight=64, timeout=math.inf, boxes=boxes)).rate


def play(service: Service, *loads: Load) -> Played:
    return service.play(*loads, seconds=SECONDS, warm_up=WARM_UP)


@pytest.mark.parametrize(
    ("service", "boxes"),
    [
        (Service(), 1),
        (Service(), 5),
        (Service(), 30),
        (Service(processes=2, max_pictures=32), 5),
        (Service(max_pictures=24), 5),
    ],
    ids=["1 box", "5 boxes", "30 boxes", "two processes", "less room"],
)
def test_twice_the_load_costs_no_goodput(service: Service, boxes: int) -> None:
    most = peak(boxes)
    played = play(service, Load(rate=2 * most, boxes=boxes))
    assert played.rate >= 0.95 * most, played
    assert played.wasted <= 0.05


@pytest.mark.parametrize("owner", ["alice", "bob"], ids=["one owner", "two owners"])
def test_a_flood_with_short_deadlines_takes_nothing_from_the_others(owner: str) -> None:
    most = peak()
    played = play(
        Service(), Load(rate=1.5 * most, timeout=0.15, owner="alice"), Load(rate=most, timeout=5.0, owner=owner)
    )
    assert set(played.loads[1].codes) == {"OK"}, played  # none of them was refused, or is late
    assert played.loads[1].whole / SECONDS >= 0.9 * most
    assert played.wasted <= 0.05


def test_an_owner_who_floods_waits_for_itself() -> None:
    most = peak()
    played = play(Service(), Load(rate=2 * most, owner="alice"), Load(rate=0.3 * most, owner="bob"))
    flood, modest = played.loads
    assert set(modest.codes) == {"OK"}, played
    assert played.rate >= 0.85 * most
    assert flood.whole > modest.whole


def test_bulk_has_what_interactive_pictures_leave() -> None:
    most = peak()
    played = play(
        Service(), Load(rate=0.4 * most, timeout=2.0), Load(rate=2 * most, timeout=30.0, priority=Priority.BULK)
    )
    interactive, bulk = played.loads
    assert set(interactive.codes) == {"OK"}, played
    assert bulk.whole / SECONDS >= 0.3 * most


def test_a_second_after_engines_have_become_slow_little_is_done_in_vain() -> None:
    played = play(Service(slower=lambda now: 2.0 if now > WARM_UP - 1 else 1.0), Load(rate=2 * peak()))
    assert played.wasted <= 0.05, played
    assert played.rate >= 0.75 * peak() / 2, played  # fewer at once, so smaller batches


@pytest.mark.parametrize("processes", [1, 4])
def test_engines_that_take_long_for_one_picture_do_little_in_vain(processes: int) -> None:
    service = Service(costs=SLOW, processes=processes)
    played = play(service, Load(rate=40))
    assert played.wasted <= 0.05, played
    assert played.busy >= 0.9 * SECONDS
