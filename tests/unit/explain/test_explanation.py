from __future__ import annotations

import pytest

from shoal.explain.explanation import explain
from shoal.explain.views import Answer, Memory
from support.visits import batcher_visit, worker_visit

MEMORY = Memory(requests=1, limit=10)


def test_the_two_views_of_one_pass_become_one_whose_stages_add_up() -> None:
    answers = {
        "b": Answer(memory=MEMORY, batcher=(batcher_visit(),)),
        "w": Answer(memory=MEMORY, worker=(worker_visit(),)),
    }
    (found,) = explain(answers)
    assert (found.batcher_part, found.worker_part) == ("b", "w")
    assert list(found.stage_seconds) == [
        "permit", "fetch", "slot", "decode", "company", "mates", "instance", "compute", "reply", "wire",
    ]  # fmt: skip
    assert sum(found.stage_seconds.values()) == pytest.approx(found.total_seconds)
    assert found.stage_seconds["wire"] == pytest.approx(0.002)


def test_each_try_is_shown_newest_first_with_its_own_worker() -> None:
    first = batcher_visit(seconds_ago=9.0, sent_as=(1, 2))
    second = batcher_visit(seconds_ago=3.0, sent_as=(3, 4))
    workers = (worker_visit(sent_as=(3, 4), version=4), worker_visit(sent_as=(1, 2), version=1))
    found = explain(
        {
            "old": Answer(memory=MEMORY, batcher=(first,)),
            "new": Answer(memory=MEMORY, batcher=(second,)),
            "w": Answer(memory=MEMORY, worker=workers),
        }
    )
    assert [(each.batcher_part, each.worker and each.worker.model_version) for each in found] == [
        ("new", 4),
        ("old", 1),
    ]


@pytest.mark.parametrize("forgotten", ["nothing", "worker", "batcher"])
def test_passes_that_went_as_the_same_item_are_told_apart_by_when_they_came(forgotten: str) -> None:
    """Two calls with one time-out that waited the same microseconds; the older half of a pass is forgotten first."""
    batchers = [batcher_visit(seconds_ago=ago, sent_as=(40, 5)) for ago in (3.0, 9.0)]
    workers = [worker_visit(seconds_ago=ago, sent_as=(40, 5), version=int(ago)) for ago in (3.0, 9.0)]
    found = explain(
        {
            "b": Answer(memory=MEMORY, batcher=tuple(batchers[: 1 if forgotten == "batcher" else 2])),
            "w": Answer(memory=MEMORY, worker=tuple(workers[: 1 if forgotten == "worker" else 2])),
        }
    )
    assert [(bool(each.batcher), each.worker and each.worker.model_version) for each in found] == {
        "nothing": [(True, 3), (True, 9)],
        "worker": [(True, 3), (True, None)],
        "batcher": [(True, 3), (False, 9)],
    }[forgotten]


def test_what_only_one_side_knows_stands_alone() -> None:
    sent_again = batcher_visit(seconds_ago=3.0, sent_as=(3, 4))
    lost = worker_visit(seconds_ago=3.2, sent_as=(1, 2))
    found = explain({"b": Answer(memory=MEMORY, batcher=(sent_again,)), "w": Answer(memory=MEMORY, worker=(lost,))})
    assert [(each.batcher_part, each.worker_part) for each in found] == [("b", ""), ("", "w")]
    assert found[0].stage_seconds == sent_again.stage_seconds


def test_one_that_was_never_sent_takes_no_worker() -> None:
    queued = batcher_visit(sent_as=None, stage_seconds={"permit": 1.0})
    (found,) = explain({"b": Answer(memory=MEMORY, batcher=(queued,))})
    assert found.worker is None


def test_a_worker_that_goes_on_after_the_caller_was_answered_makes_no_time_negative() -> None:
    expired = batcher_visit(code="DEADLINE_EXCEEDED", stage_seconds={"permit": 0.0, "open": 0.01}, total_seconds=0.01)
    answers = {
        "b": Answer(memory=MEMORY, batcher=(expired,)),
        "w": Answer(memory=MEMORY, worker=(worker_visit(),)),
    }
    (found,) = explain(answers)
    assert found.stage_seconds["wire"] == 0.0
    assert found.total_seconds == 0.01
