from __future__ import annotations

from typing import Any

import pytest

from shoal.explain.explanation import Explanation, explain
from shoal.explain.story import heading, sentences
from shoal.explain.views import Answer, BatcherVisit, Memory, RegionView, Way, WorkerVisit
from support.visits import batch_view, batcher_visit, worker_visit

UUID = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
MEMORY = Memory(requests=1, limit=10)


def story(batcher: BatcherVisit | None, worker: WorkerVisit | None = None) -> Explanation:
    (found,) = explain(
        {
            "b": Answer(memory=MEMORY, batcher=(batcher,) if batcher else ()),
            "w": Answer(memory=MEMORY, worker=(worker,) if worker else ()),
        }
    )
    return found


def text(batcher: BatcherVisit | None, worker: WorkerVisit | None = None) -> str:
    return "\n".join(sentences(story(batcher, worker)))


def test_an_answered_request() -> None:
    each = story(batcher_visit(), worker_visit())
    assert heading(UUID, each) == f"classify {UUID} · model m version 1 · answered OK after 50.0 ms · 3.0 s ago"
    assert sentences(each) == [
        "b: for key key-1, with 1 s to its deadline",
        "batch of 2, closed after 5.0 ms because its oldest request had waited max_queue_delay_microseconds (5.0 ms)",
        "w: 2 pictures ran together",
    ]


def test_a_bulk_request_is_called_one() -> None:
    assert "for key key-1, bulk, with 1 s" in text(batcher_visit(priority="bulk"))
    assert "for key key-1, with 1 s" in text(batcher_visit(priority="interactive"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 8, "closed_because": "preferred"}, "because it was full: max_batch_size is 8"),
        ({"size": 4, "closed_because": "preferred"}, "because it had reached a preferred_batch_size, 4"),
        ({"closed_because": "deadline"}, "waiting longer would have missed its tightest deadline"),
        ({"closed_because": "drain"}, "the batcher was draining"),
        (
            {"closed_because": "objective", "latency_objective_microseconds": 80_000},
            "waiting longer would have missed latency_objective_ms (80.0 ms)",
        ),
        ({"closed_because": "enough"}, "more requests would hardly have made it cheaper"),
        ({"closed_because": "bulk"}, "bulk requests waited to fill it"),
        ({"max_queue_delay_microseconds": 0}, "nothing waits for company: max_queue_delay_microseconds is 0"),
        ({"closed_because": "a later version's"}, "because of a later version's"),
        ({"closed_because": ""}, "its batch is open: 2 requests so far, for 5.0 ms"),
    ],
)
def test_why_a_batch_closed(changes: dict[str, object], words: str) -> None:
    assert words in text(batcher_visit(batch=batch_view(**changes)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"code": ""}, "still waiting: no worker has granted a permit"),
        ({"code": "", "queued_ahead": 37}, "37 requests of its queue were ahead of it"),
        (
            {"code": "RESOURCE_EXHAUSTED", "message": "the queue is full (5 requests wait)"},
            "refused before it was sent, RESOURCE_EXHAUSTED: the queue is full (5 requests wait)",
        ),
        ({"code": "DEADLINE_EXCEEDED"}, "expired in the queue: no worker granted a permit within its 1 s"),
        ({"code": "CANCELLED"}, "its caller went away while it waited for a permit"),
        ({"code": "", "broken_streams": 1}, "sent again: 1 stream broke under it"),
        ({"code": "", "broken_streams": 2}, "sent again: 2 streams broke under it"),
    ],
)
def test_one_that_was_not_sent(changes: dict[str, object], words: str) -> None:
    visit = batcher_visit(batch=None, sent_as=None, stage_seconds={"permit": 1.0}, **changes)
    assert words in text(visit)
    assert "no worker that was asked" not in text(visit)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 1}, "it ran by itself; 1 other of its batch failed or was left behind"),
        (
            {"result_cache": "hit", "batch_size": 0},
            "answered from the result cache, as an earlier request with the same",
        ),
        ({"result_cache": "hit", "left_behind": True, "batch_size": 0}, "w: answered from the result cache"),
        (
            {"result_cache": "miss", "batch_size": 1},
            "it ran by itself; 1 other of its batch failed, was left behind or had its answer in the result cache",
        ),
        ({"left_behind": True, "batch_size": 1}, "its batch went without it, since its picture wasn't ready in time"),
        ({"left_behind": True, "batch_size": 1}, "it ran later, by itself"),
        ({"left_behind": True, "batch_size": 3}, "it ran later, with 2 other stragglers"),
        ({"left_behind": True, "batch_size": 0}, "it never reached the engine"),
        ({"left_behind": True, "batch_size": 0, "code": ""}, "it runs later"),
        ({"executions": 2, "batch_size": 1}, "the engine failed on its batch, so each picture of it ran alone"),
        ({"batch_size": 0, "code": "NOT_FOUND", "message": "no image"}, "it never reached the engine"),
        ({"batch_size": 0, "code": "", "stage_seconds": {"fetch": 1.0}}, "at the worker now: fetching the picture"),
        ({"batch_size": 0, "code": "", "stage_seconds": {"novel": 1.0}}, "at the worker now: novel"),
        ({"batch_size": 0, "code": "", "stage_seconds": {}}, "it has not reached the engine"),
    ],
)
def test_the_workers_part(changes: dict[str, object], words: str) -> None:
    assert words in text(batcher_visit(), worker_visit(**changes))


def way(x: float, **changes: Any) -> Way:
    """Of one of several regions."""
    given = {"batch_size": 2, "stage_seconds": {"fetch": 0.004, "send": 0.001}, "total_seconds": 0.03, "code": "OK"}
    return Way(region=RegionView(x=x, y=0.1, width=0.25, height=0.5), **(given | changes))


def test_each_region_of_a_request_is_told() -> None:
    regions = (
        way(0.0, result_cache="hit", batch_size=0, total_seconds=0.006),
        way(0.25, result_cache="miss"),
        way(0.5, result_cache="miss", left_behind=True, put_off=True, batch_size=1),
        way(0.75, result_cache="miss", batch_size=0, code="INVALID_ARGUMENT", message="no picture"),
        way(0.1, batch_size=0, code="", stage_seconds={"fetch": 0.0}),
    )
    visit = worker_visit(regions=regions, priority="bulk")
    asked = "answered from the result cache, as an earlier request with the same content: nothing was computed"
    failed = "INVALID_ARGUMENT no picture"
    told = sentences(story(batcher_visit(), visit))[2:]
    assert told[0] == (
        "w: 5 regions of the picture; 1 of them answered from the result cache; bulk: interactive pictures went first"
    )
    assert [each.removesuffix("; ready after 29.0 ms") for each in told[1:]] == [
        f"regions[0] (0, 0.1), 0.25 x 0.5: {asked}; ready after 5.0 ms",
        "regions[1] (0.25, 0.1), 0.25 x 0.5: 2 pictures ran together",
        "regions[2] (0.5, 0.1), 0.25 x 0.5: its batch had no row left for it; it ran later, by itself",
        f"regions[3] (0.75, 0.1), 0.25 x 0.5: it never reached the engine; ready after 29.0 ms; {failed}",
        "regions[4] (0.1, 0.1), 0.25 x 0.5: it has not reached the engine; now: fetching the picture",
    ]


def test_of_regions_without_a_cache_none_is_said_to_be_known() -> None:
    assert "w: 2 regions of the picture\n" in text(batcher_visit(), worker_visit(regions=(way(0.0), way(0.5))))


def test_the_one_region_of_a_request_is_named() -> None:
    region = RegionView(x=0.123456, y=0, width=0.5, height=1, padding=0.1, square=True)
    words = "w: region (0.1235, 0), 0.5 x 1, padded by 0.1, square: 2 pictures ran together"
    assert words in text(batcher_visit(), worker_visit(region=region))


def test_an_older_worker_tells_no_region() -> None:
    known = worker_visit().model_dump(exclude={"region", "regions", "put_off"})
    assert "w: 2 pictures ran together" in text(batcher_visit(), WorkerVisit.model_validate(known))


def test_an_error_is_told_once() -> None:
    batcher = batcher_visit(code="NOT_FOUND", message="no image")
    assert text(batcher, worker_visit(code="NOT_FOUND", message="no image", batch_size=0)).count("no image") == 1


def test_an_answer_that_came_too_late_is_told() -> None:
    assert "the worker's own answer: OK" in text(batcher_visit(code="DEADLINE_EXCEEDED"), worker_visit())


def test_a_worker_that_nobody_asked_is_missed() -> None:
    assert "no worker that was asked remembers it" in text(batcher_visit())


def test_what_a_worker_alone_knows() -> None:
    each = story(None, worker_visit(code="CANCELLED", message="the batch's stream ended"))
    assert heading(UUID, each).startswith(f"a worker's part of {UUID} · model m version 1 · answered CANCELLED")
    assert "the worker's own answer: CANCELLED the batch's stream ended" in sentences(each)
