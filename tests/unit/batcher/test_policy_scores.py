"""The policy's scores in scenarios, each with a floor; and that a policy made worse falls below some."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from shoal.batcher import level
from shoal.batcher.closing import Closing
from shoal.batcher.policy import BatchingPolicy
from shoal.batcher.refusals import Refusals
from shoal.batching.fair_queue import FairQueue, Queued
from shoal.runtime.priority import Priority
from support.scored.floors import FLOORS, fallen
from support.scored.scenarios import QUEUES
from support.scored.score import Run, Score, fair_shares
from support.scored.wide import SERVICES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


SCENARIOS = QUEUES | SERVICES


@pytest.mark.parametrize("name", FLOORS)
def test_no_score_falls_below_its_floor(name: str) -> None:
    table = fallen({name: SCENARIOS[name].play().score()})
    assert not table, f"the policy got worse:\n{table}"


def test_every_scenario_has_a_floor_and_the_same_score_each_time() -> None:
    assert SCENARIOS.keys() == FLOORS.keys()
    for name in ("burst", "dying worker"):
        assert SCENARIOS[name].play() == SCENARIOS[name].play()


# Made worse on purpose.


def closes_at_once(patch: pytest.MonkeyPatch) -> None:
    """Whatever it was told to wait for."""
    patch.setattr(Closing, "due", lambda _self, now, _batch, _bulk: (now, "delay"))


class Line(FairQueue[Queued]):
    """Owners have no turns: a request waits for all that came before."""

    def take(self, count: int) -> list[Queued]:
        first = sorted((one for of in self._of.values() for one in of), key=lambda one: one.arrived)[:count]
        for one in first:
            self.discard(one)
        return first

    def ahead_of(self, place: int) -> int:
        return len(self) - 1


def first_in_first_out(patch: pytest.MonkeyPatch) -> None:
    """Whosever it is."""
    patch.setattr(level, "FairQueue", Line)


def refuses_nobody(patch: pytest.MonkeyPatch) -> None:
    """Until it is too late."""

    def hopeless(_self: object, _now: float, _requests: object) -> Iterator[tuple[Queued, Exception]]:
        return iter(())

    patch.setattr(Refusals, "hopeless", hopeless)


def sends_what_comes_too_late(patch: pytest.MonkeyPatch) -> None:
    """Its answer misses the deadline, and an engine has worked for nobody."""
    patch.setattr(BatchingPolicy, "_answered_by", lambda _self, now, _batch, _size: now)


def knows_no_priority(patch: pytest.MonkeyPatch) -> None:
    """Bulk requests are as urgent as others."""
    kept = BatchingPolicy.arrived

    def arrived(self: BatchingPolicy[str, Queued], now: float, requests: list[Queued]) -> object:
        for one in requests:
            one.priority = Priority.INTERACTIVE
        return kept(self, now, requests)

    patch.setattr(BatchingPolicy, "arrived", arrived)


@pytest.mark.parametrize(
    ("worsen", "name", "measures"),
    [
        (closes_at_once, "objective at low load", {"batch_size"}),
        (closes_at_once, "bulk beside interactive", {"latency"}),
        (first_in_first_out, "skewed owners", {"latency", "fairness"}),
        (refuses_nobody, "overload", {"fairness"}),
        (sends_what_comes_too_late, "overload", {"goodput"}),
        (sends_what_comes_too_late, "skewed owners", {"goodput"}),
        (knows_no_priority, "bulk beside interactive", {"latency"}),
    ],
)
def test_a_policy_made_worse_falls_below_its_floor(
    worsen: Callable[[pytest.MonkeyPatch], None], name: str, measures: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    worsen(monkeypatch)
    score = SCENARIOS[name].play().score()
    assert measures <= score.below(FLOORS[name]).keys(), score


# The formulas.


def test_who_asks_for_little_has_it_all_and_the_others_share_the_rest() -> None:
    assert fair_shares({"a": 10, "b": math.inf, "c": 100}, 90) == {"a": 10, "c": 40, "b": 40}
    assert fair_shares({"a": 10, "b": 20}, 90) == {"a": 10, "b": 20}


def test_a_score_is_what_its_formulas_say() -> None:
    run = Run({"a": 50, "b": 150}, {"a": 50, "b": 25}, 100, {"a": [0.1] * 98 + [0.2] * 2, "b": [1.0]}, 0.1, 4.0, 16)
    score = run.score()
    assert (score.goodput, score.latency, score.batch_size) == (75.0, 50.0, 25.0)
    assert score.fairness == pytest.approx(90.0)  # x is 1 and 0.5: 1.5 ** 2 / (2 * 1.25)
    assert Run({"a": 10}, {}, 10, {}, 0.1, 0.0, 16).score() == Score(0.0, 0.0, 0.0, 0.0)


def test_the_table_tells_what_fell_and_nothing_else() -> None:
    floors = {"steady": Score(90, 80, 70, 60), "burst": Score(1, 1, 1, 1)}
    table = fallen({"steady": Score(90, 79.96, 10, 99), "burst": Score(1, 1, 1, 1)}, floors)
    assert [line.split() for line in table.splitlines()] == [
        ["scenario", "measure", "score", "floor"],
        ["steady", "latency", "80.0", "80"],
        ["steady", "batch_size", "10.0", "70"],
    ]
