"""What the parts' answers mean together: each pass of a request through the service, and where its time went."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from shoal.explain.views import Answer, BatcherVisit, View, WorkerVisit

if TYPE_CHECKING:
    from collections.abc import Mapping


class Explanation(View):
    """One pass of a request. A client that tries again makes several; so does a worker that dies.

    One without a batcher is known to a worker alone: its stream broke, or the batcher has forgotten it.
    """

    batcher_part: str = ""
    batcher: BatcherVisit | None = None
    worker_part: str = ""
    worker: WorkerVisit | None = None
    stage_seconds: dict[str, float]
    """The stages of batcher and worker together; ``wire`` is what lies between them, both ways."""
    total_seconds: float
    """From the batcher's view if it has one."""

    @property
    def seconds_ago(self) -> float:
        """When it came."""
        return max(visit.seconds_ago for visit in (self.batcher, self.worker) if visit)


def explain(answers: Mapping[str, Answer]) -> list[Explanation]:
    """Brings together what parts, by name, remember of one uuid; newest first.

    A batcher's and a worker's visit are of one pass where the item that went between them is the same: it carries
    microseconds of waiting and of deadline. Two passes that share these too, as two calls do that hardly waited and
    have one time-out, are told apart by when they came; it is the older ones that a part may have forgotten.
    """
    workers: defaultdict[tuple[str, tuple[int, int] | None], list[tuple[str, WorkerVisit]]] = defaultdict(list)
    for part, answer in answers.items():
        for visit in answer.worker:
            workers[visit.model, visit.sent_as].append((part, visit))
    for same in workers.values():
        same.sort(key=lambda each: each[1].seconds_ago, reverse=True)
    batchers = [(part, visit) for part, answer in answers.items() for visit in answer.batcher]
    found = []
    for part, sent in sorted(batchers, key=lambda each: each[1].seconds_ago):
        alike = workers[sent.model, sent.sent_as]
        found.append(_explanation(part, sent, *(alike.pop() if alike else ("", None))))
    alone = (_explanation("", None, part, visit) for same in workers.values() for part, visit in same)
    return sorted((*found, *alone), key=lambda explanation: explanation.seconds_ago)


def _explanation(
    batcher_part: str, batcher: BatcherVisit | None, worker_part: str, worker: WorkerVisit | None
) -> Explanation:
    visit = batcher or worker
    assert visit is not None
    spans = dict(visit.stage_seconds)
    if batcher and worker:
        away = spans.pop("open", 0.0) + spans.pop("closed", 0.0)
        spans |= worker.stage_seconds | {"wire": max(0.0, away - worker.total_seconds)}
    return Explanation(
        batcher_part=batcher_part,
        batcher=batcher,
        worker_part=worker_part,
        worker=worker,
        stage_seconds=spans,
        total_seconds=visit.total_seconds,
    )
