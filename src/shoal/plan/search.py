"""The fewest GPUs with which a placement keeps every objective: simulated, from the arithmetic bound upwards."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shoal.plan.bound import gpus, gpus_inside

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoal.plan.placements import Placement, PlannedPool
    from shoal.plan.trial import Bench, Trial

_STEP = 0.15
"""By which the number grows while it is too small, as a share: then the gap is halved until it is one."""
_MOST_TIMES = 6
_MOST_MORE = 40
"""The bound so many times, and so many more: beyond, a placement counts as unable."""
_ROUNDING = 1e-9


@dataclass(slots=True)
class _Bracket:
    """What is known of a pool: too few, and enough."""

    low: int
    high: int | None = None
    now: int = 0
    failed: int = 0

    @classmethod
    def starting_at(cls, least: int) -> _Bracket:
        return cls(least - 1, None, least)

    def learn(self, *, enough: bool) -> None:
        """Of the number that was tried."""
        if enough:
            self.high = self.now if self.high is None else min(self.high, self.now)
        else:
            self.low = max(self.low, self.now)
            self.failed += 1
        if self.high is None:
            self.now = self.low + max(1, math.ceil(_STEP * self.failed * self.low))
        else:
            self.now = self.high if self.done else (self.low + self.high) // 2

    @property
    def done(self) -> bool:
        """Whether one less is too few."""
        return self.high is not None and self.high - self.low <= 1


def fewest(
    bench: Bench, placement: Placement, *, lose_server: bool = False, least: Mapping[str, int] | None = None
) -> Trial | None:
    """The trial with the fewest GPUs in each pool that keeps all objectives; None: no number does.

    Quick trials find where to look, whole ones raise it until all is in time, so the answer is that of a whole trial.
    Pools don't feel each other: each is searched by itself, all in the same trials. Numbers below are taken for too few
    where a larger one is.

    Args:
        bench: How trials are made.
        placement: What is sized.
        lose_server: With a server of each pool lost.
        least: Begins here; by default at the arithmetic bound.
    """
    start = {pool.name: max(_bound(pool, placement), (least or {}).get(pool.name, 1)) for pool in placement.pools}
    tried = _bisected(bench.quick, placement, start, lose_server=lose_server)
    while tried is not None:
        trial = bench.trial(placement, tried, lose_server=lose_server)
        if trial.in_time:
            return trial
        kept = _kept(placement, trial)
        tried = {name: number if kept[name] else number + _more(number) for name, number in tried.items()}
        if _beyond(tried, start):
            return None
    return None


def _bisected(
    bench: Bench, placement: Placement, start: Mapping[str, int], *, lose_server: bool
) -> dict[str, int] | None:
    """Of each pool the least number that is enough, where one less isn't; None: none is."""
    brackets = {name: _Bracket.starting_at(number) for name, number in start.items()}
    while not all(bracket.done for bracket in brackets.values()):
        tried = {name: bracket.now for name, bracket in brackets.items()}
        if _beyond(tried, start):
            return None
        kept = _kept(placement, bench.trial(placement, tried, lose_server=lose_server))
        for name, bracket in brackets.items():
            if not bracket.done:
                bracket.learn(enough=kept[name])
    return {name: bracket.now for name, bracket in brackets.items()}


def _kept(placement: Placement, trial: Trial) -> dict[str, bool]:
    """Whether each pool kept the objectives of its models."""
    in_time = {model.name: model.in_time for model in trial.models}
    return {pool.name: all(in_time.get(model.name, True) for model in pool.models) for pool in placement.pools}


def _beyond(tried: Mapping[str, int], start: Mapping[str, int]) -> bool:
    return any(number > _MOST_TIMES * start[name] + _MOST_MORE for name, number in tried.items())


def _more(number: int) -> int:
    return max(1, number // 20)


def timetable(bench: Bench, placement: Placement, peak: Trial) -> tuple[int, ...]:
    """GPUs of each hour, of all pools together.

    An hour gets what the peak got over its bound, rounded up, and never more than the peak. Each number is tried at the
    heaviest hour that has it, and raised for all its hours until that keeps the objectives.
    """
    hours = range(len(placement.pools[0].models[0].rates))
    totals = [0] * len(hours)
    for pool in placement.pools:
        for hour, number in enumerate(_pool_timetable(bench, placement, pool, peak.gpus[pool.name])):
            totals[hour] += number
    return tuple(totals)


def _pool_timetable(bench: Bench, placement: Placement, pool: PlannedPool, most: int) -> list[int]:
    alone = replace(placement, pools=(pool,))
    margin = most / max(pool.need(pool.peak_hour), _ROUNDING)
    hours = range(len(pool.models[0].rates))
    found = [min(most, max(1, math.ceil(margin * pool.need(hour) - _ROUNDING))) for hour in hours]
    for number in sorted(set(found)):
        same = [hour for hour in hours if found[hour] == number]
        heaviest = max(same, key=pool.need)
        enough = _raised(number, most, lambda n, hour=heaviest: _in_time(bench.quick, alone, pool, n, hour))  # type: ignore[misc]
        for hour in same:
            found[hour] = enough
    return found


def _raised(number: int, most: int, enough: Callable[[int], bool]) -> int:
    while number < most and not enough(number):
        number += 1
    return number


def _in_time(bench: Bench, placement: Placement, pool: PlannedPool, number: int, hour: int) -> bool:
    if not pool.need(hour):
        return True
    return bench.trial(placement, {pool.name: number}, hours={pool.name: hour}).in_time


def _bound(pool: PlannedPool, placement: Placement) -> int:
    """Whole GPUs of a pool at its peak, by arithmetic."""
    if placement.balancing != "permits":
        return gpus_inside(pool.models, pool.peak_hour)
    return max(1, math.ceil(gpus(pool.models, pool.peak_hour) - _ROUNDING))


def bound(placement: Placement) -> int:
    """Whole GPUs of all pools, by arithmetic."""
    return sum(_bound(pool, placement) for pool in placement.pools)


def spread(needed: Trial, total: int) -> dict[str, int]:
    """``total`` GPUs over the pools: as many as each needs, or their proportion of what there is; one at least."""
    shares = {name: total * number / needed.total for name, number in needed.gpus.items()}
    found = {name: max(1, math.floor(share)) for name, share in shares.items()}
    while sum(found.values()) < total:
        name = max(found, key=lambda name: shares[name] - found[name])
        found[name] += 1
    return found
