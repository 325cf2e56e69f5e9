"""The moment in which a server dies at the peak: who waits, who gets no answer, and when all is well again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Final

from shoal.runtime.percentile import percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoal.plan.trial import Bench, Trial
    from shoal.simulate.scenario import Moment

DETECTION_SECONDS: Final = 2.0
"""Until a host that vanished is given up, at most: docs/routing.md."""
_BEFORE, _AFTER = 6, 24
"""Moments that are looked at, besides those of the detection."""
_SHORTEST, _LONGEST = 0.1, 10.0
"""Seconds of a moment."""
_ENOUGH = 100
_PART = 1 / 75
"""Requests of the rarest model in a moment: 100, one of them beyond p99, and this part of those of a whole trial."""
_MOST_LOST = 0.01


@dataclass(frozen=True, slots=True)
class ModelLoss:
    """What it means for a model."""

    name: str
    p99_before_ms: float
    """Of all answers of some moments before it: what the objective speaks of."""
    worst_before_ms: float
    worst_p99_ms: float
    """p99 of one moment, the worst before and the worst after: a tenth of a second has few answers beyond p99, so that
    chance alone brings one above the objective now and then."""
    lost_requests: int
    """Without an answer, of all that were sent after the death while it was looked at."""
    lost: float
    """Their share."""
    recovery_seconds: float | None
    """From the death until p99 keeps the objective, or is no worse than in a moment before, and goes on so; None: not
    while it was looked at. 0: it always did."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What it means for a placement."""

    gpus: int
    """Before."""
    server_gpus: int
    """That it has. Pools don't feel each other: so one run, in which each loses a server, tells of all."""
    moment_seconds: float
    detection_seconds: float
    models: tuple[ModelLoss, ...]


def server_dies(bench: Bench, trial: Trial, detection_seconds: float = DETECTION_SECONDS) -> Loss:
    """Simulates it, with the GPUs and settings of a trial, at the heaviest hour of each pool.

    The server vanishes: nobody is told, connections stay open. Nothing replaces it.
    """
    placement, hours = trial.placement, {pool.name: pool.peak_hour for pool in trial.placement.pools}
    rarest = min(model.rates[hours[pool.name]] or math.inf for pool in placement.pools for model in pool.models)
    moment = min(_LONGEST, max(_SHORTEST, (_ENOUGH + bench.requests * _PART) / rarest))
    dies = _BEFORE * moment
    seconds = dies + _AFTER * moment + math.ceil(detection_seconds / moment) * moment
    told = bench.scenario(placement, trial.gpus, hours, seconds=seconds)
    faults = bench.lost_servers(placement, trial.gpus, dies, seconds, detection_seconds)
    outcome = bench.run(replace(told, faults=faults, moment=moment))
    objectives = {model.name: model.objective for pool in placement.pools for model in pool.models}
    return Loss(
        trial.total,
        bench.gpus_per_server,
        moment,
        detection_seconds,
        tuple(_of(name, came.moments, objectives[name], moment) for name, came in outcome.models.items()),
    )


def _of(name: str, moments: Sequence[Moment], objective: float, seconds: float) -> ModelLoss:
    before, after = moments[_BEFORE // 2 : _BEFORE], moments[_BEFORE:]
    usual = percentile(sorted(chain.from_iterable(each.latencies for each in before)), 0.99) or 0.0
    worst = max(_p99(each) for each in before)
    bad = [number for number, each in enumerate(after) if not _well(each, max(objective, worst))]
    until = bad[-1] + 1 if bad else 0
    offered = sum(each.offered for each in after)
    lost = offered - sum(len(each.latencies) for each in after)
    return ModelLoss(
        name,
        round(1000 * usual, 2),
        round(1000 * worst, 2),
        round(1000 * max(map(_p99, after)), 2),
        lost,
        lost / offered if offered else 0.0,
        None if until == len(after) else round(until * seconds, 3),
    )


def _p99(moment: Moment) -> float:
    return percentile(moment.latencies, 0.99) or 0.0


def _well(moment: Moment, most: float) -> bool:
    return _p99(moment) <= most and moment.offered - len(moment.latencies) <= _MOST_LOST * moment.offered
