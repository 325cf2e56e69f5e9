from __future__ import annotations

from shoal.cli.story import timeline
from shoal.explain.explanation import explain
from shoal.explain.views import Answer, Memory
from support.visits import batcher_visit, worker_visit

MEMORY = Memory(requests=1, limit=10)


def test_the_timeline_leaves_out_what_took_no_time_and_adds_up() -> None:
    (story,) = explain({"p": Answer(memory=MEMORY, batcher=(batcher_visit(),), worker=(worker_visit(),))})
    table = timeline(story)
    names, times = (list(column.cells) for column in table.columns[:2])
    assert names[0] == "waiting for a permit"
    assert "waiting for a slot and a decoder" not in names
    assert (names[-1], times[-1]) == ("sum", "50.0 ms")
