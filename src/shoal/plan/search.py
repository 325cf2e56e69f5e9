"""The fewest GPUs with which a placement keeps every objective: simulated, from the arithmetic bound upwards."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shoal.plan.bound import gpus, gpus_inside
from shoal.plan.tuning import choices

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shoal.plan.placements import Placement
    from shoal.plan.pool import PlannedPool
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

    Quick trials find where to look, and how the models of a pool are best served. Then the answer is the least number
    there that keeps the objectives in a whole trial and in a long one of other requests, so that neither luck nor a
    queue that grows slowly decides. Pools don't feel each other: each is searched by itself.

    Args:
        bench: How trials are made.
        placement: What is sized.
        lose_server: With a server of each pool lost.
        least: Begins here; by default at the arithmetic bound.
    """
    start = {pool.name: max(_bound(pool, placement), (least or {}).get(pool.name, 1)) for pool in placement.pools}
    sized = [_sized(_Search(bench, placement, lose_server), pool, start[pool.name]) for pool in placement.pools]
    found = [one for one in sized if one is not None]
    if len(found) < len(sized):
        return None
    tuned = replace(placement, pools=tuple(pool for pool, _ in found))
    return bench.trial(tuned, {pool.name: number for pool, number in found}, lose_server=lose_server)


@dataclass(frozen=True, slots=True)
class _Search:
    """For the fewest GPUs of a pool."""

    bench: Bench
    placement: Placement
    lose_server: bool

    def quick(self, pool: PlannedPool, number: int) -> bool:
        """Whether a quick trial says that so many are enough."""
        return self._keeps(self.bench.quick, pool, number)

    def decided(self, pool: PlannedPool, number: int) -> bool:
        """Whether so many are enough."""
        return all(self._keeps(bench, pool, number) for bench in (self.bench, self.bench.long))

    def _keeps(self, bench: Bench, pool: PlannedPool, number: int) -> bool:
        alone = replace(self.placement, pools=(pool,))
        return bench.trial(alone, {pool.name: number}, lose_server=self.lose_server).in_time


def _sized(search: _Search, pool: PlannedPool, start: int) -> tuple[PlannedPool, int] | None:
    """The pool as it is best served, and its GPUs; None: no number is enough."""
    for one, number in _able(search, pool, start):
        if (found := _settled(search, one, number, start)) is not None:
            return one, found
    return None


def _able(search: _Search, pool: PlannedPool, start: int) -> list[tuple[PlannedPool, int]]:
    """The ways to serve the pool that quick trials call able, with their least numbers; the fewest GPUs first.

    A later way is looked at only where it keeps the objectives with a GPU less than those before it.
    """
    found: list[tuple[PlannedPool, int]] = []
    for one in (replace(pool, tuning=each) for each in choices(pool)):
        least = found[0][1] if found else None
        if least == start or (least is not None and not search.quick(one, least - 1)):
            continue
        if (number := _bisected(search, one, start)) is not None:
            found = sorted([*found, (one, number)], key=lambda each: each[1])
    return found


def _bisected(search: _Search, pool: PlannedPool, start: int) -> int | None:
    """The least number that a quick trial calls enough, where one less isn't; None: none is.

    Numbers below one that is too few are taken for too few.
    """
    bracket = _Bracket.starting_at(start)
    while not bracket.done:
        if _beyond(bracket.now, start):
            return None
        bracket.learn(enough=search.quick(pool, bracket.now))
    return bracket.now


def _settled(search: _Search, pool: PlannedPool, number: int, start: int) -> int | None:
    """The least number that is enough, near ``number``; None: none above is."""
    if search.decided(pool, number):
        while number > start and search.decided(pool, number - 1):
            number -= 1
        return number
    while not _beyond(number, start):
        number += _more(number)
        if search.decided(pool, number):
            return number
    return None


def _beyond(number: int, start: int) -> bool:
    return number > _MOST_TIMES * start + _MOST_MORE


def _more(number: int) -> int:
    return max(1, number // 20)


def timetable(bench: Bench, placement: Placement, peak: Trial) -> tuple[int, ...]:
    """GPUs of each hour, of all pools together.

    An hour gets what the peak got over its bound, rounded up, and never more than the peak. Each number is tried at the
    heaviest hour that has it, and raised for all its hours until that keeps the objectives.
    """
    hours = range(len(placement.pools[0].models[0].rates))
    totals = [0] * len(hours)
    for pool in peak.placement.pools:
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
