"""What is played: one queue each, but for those of ``wide``. The model is an accelerator's, 16 pictures in 40 ms."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shoal.modelconfig.batching import BatchingSettings
from shoal.runtime.priority import Priority
from shoal.simulate.curve import CostCurve
from shoal.simulate.queue import Load, VirtualService
from support.scored.score import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from shoal.batching.fair_queue import Queued
    from shoal.simulate.replica import Batch

LARGEST = 16
CURVE = CostCurve(0.0232, 0.00105)
PATH, PREPARE, NOISE = 0.0005, 0.003, 0.1
WARM_UP = 2.0
FULL = CURVE.seconds(LARGEST) * (1 + NOISE / 2)
RATE = LARGEST / FULL
"""Pictures a second of a worker with full batches."""
SLOW = 4.0


def slow_one(worker: str, _: Batch, seconds: float) -> float:
    """The first replica."""
    return SLOW * seconds if worker == "w00" else seconds


@dataclass(frozen=True)
class Queue:
    """A scenario with one model."""

    loads: Sequence[Load]
    workers: int = 4
    seconds: float = 12.0
    settings: BatchingSettings = field(default_factory=lambda: BatchingSettings(max_batch_size=LARGEST))
    worth: float = 4.0
    """Workers of usual speed that have the speed of these together."""
    takes: Callable[[str, Batch, float], float] = lambda _, __, seconds: seconds

    def play(self) -> Run:
        """Once; each time the same."""
        service = VirtualService(
            *(self.settings, CURVE, self.workers),
            path_seconds=PATH,
            prepare_seconds=PREPARE,
            noise=NOISE,
            takes=self.takes,
        )
        service.run(self.seconds, self.loads)
        return self._run(service)

    def _run(self, service: VirtualService) -> Run:
        answers = [(request, at) for request, at in service.answered if WARM_UP <= at < self.seconds]
        came = [request for request, _ in service.answered] + [each.request for each in service.rejected]
        asked: dict[str, float] = {**Counter(_owner(one) for one in came if one.arrived >= WARM_UP)}
        asked |= {load.owner: math.inf for load in self.loads if load.in_flight}
        sizes = [len(batch.requests) for batch in service.batches if WARM_UP <= batch.ended < self.seconds]
        objective = self.settings.latency_objective_microseconds / 1e6
        return Run(
            asked=asked,
            in_time=Counter(_owner(request) for request, at in answers if at <= request.deadline),
            possible=self.worth * RATE * (self.seconds - WARM_UP),
            latencies=_by_owner(answers),
            bound=objective or 2 * PATH + PREPARE + 2 * FULL,
            mean_batch_size=sum(sizes) / len(sizes),
            largest_batch_size=LARGEST,
        )


def _owner(request: Queued) -> str:
    """Those who always have some waiting are several to the policy, ``bulk-1`` and so on, and one to the score."""
    return request.owner.partition("-")[0]


def _by_owner(answers: Iterable[tuple[Queued, float]]) -> dict[str, list[float]]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    for request, at in answers:
        if request.priority is Priority.INTERACTIVE:
            found[_owner(request)].append(at - request.arrived)
    return found


def of_all(share: float, **more: object) -> Load:
    """A load of that share of what four workers carry."""
    return Load(share * 4 * RATE, **more)  # type: ignore[arg-type]


def _objective(milliseconds: int) -> BatchingSettings:
    return BatchingSettings(max_batch_size=LARGEST, latency_objective_microseconds=1000 * milliseconds)


QUEUES = {
    "steady": Queue([of_all(0.35, owner="a", timeout=1.0), of_all(0.35, owner="b", timeout=1.0)]),
    "burst": Queue(
        [of_all(0.3, owner="a", timeout=0.5), of_all(0.3 / 64, owner="b", at_once=64, timeout=0.5)],
        seconds=22.0,
    ),
    "skewed owners": Queue(
        [
            of_all(1.5 / 16, owner="hog", at_once=16, timeout=5.0),
            *(of_all(0.05, owner=f"modest {number}", timeout=0.5) for number in range(6)),
        ]
    ),
    "slow replica": Queue(
        [of_all(0.15, owner=owner, timeout=1.0) for owner in "ab"], worth=3 + 1 / SLOW, takes=slow_one
    ),
    "bulk beside interactive": Queue(
        [of_all(0.3, owner="a", timeout=1.0), *[Load(1.0, Priority.BULK, in_flight=4 * LARGEST, owner="bulk")] * 6]
    ),
    "tight deadlines": Queue([of_all(0.5, owner="a", timeout=2.5 * FULL), of_all(0.5, owner="b", timeout=0.3)]),
    "overload": Queue([of_all(0.5, owner=owner, timeout=0.3) for owner in "abc"]),
    "objective at low load": Queue(
        [of_all(0.1, owner=owner, timeout=1.0) for owner in "ab"], settings=_objective(150), seconds=42.0
    ),
    "tight objective": Queue(
        [Load(2 * RATE, owner=owner, timeout=1.0) for owner in "ab"], workers=8, worth=8.0, settings=_objective(50)
    ),
}
