"""What a run was worth.

All four are 0 to 100; what counts is what happened after the warm-up and before the end of the load.

- goodput: ``100 * in time / possible``. In time are the answers that came before their deadlines; possible are the
  requests that came, or what all devices make in full batches if that is less.
- latency: ``100 * bound / p99``, 100 at most, of interactive answers to owners who ask for no more than their fair
  share; of all where there is no such owner. The bound is the model's latency objective; where it has none, what a
  request takes that comes just when a full batch has begun, and goes with a full batch itself: way, preparation, two
  full batches.
- batch size: ``100 * mean batch size / largest``, the mean over batches.
- fairness: ``100 * (sum x)^2 / (n * sum x^2)`` over owners, Jain's index (Jain, Chiu, Hawe: A Quantitative Measure of
  Fairness, DEC-TR-301, 1984). ``x`` is an owner's answers in time over its max-min fair share: all that it asked for,
  or an equal part of what those leave who asked for less.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING

from shoal.runtime.percentile import percentile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Score:
    """By measure, 0 to 100."""

    goodput: float
    latency: float
    batch_size: float
    fairness: float

    def below(self, floor: Score) -> dict[str, tuple[float, float]]:
        """By measure, what it is and what it should at least be: those that are less."""
        least = asdict(floor)
        return {name: (got, least[name]) for name, got in asdict(self).items() if got < least[name]}


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a scenario."""

    asked: Mapping[str, float]
    """Requests by owner; infinite where it always has some waiting."""
    in_time: Mapping[str, int]
    """Answers by owner."""
    possible: float
    """Pictures that all devices make meanwhile in full batches."""
    latencies: Mapping[str, Sequence[float]]
    """Seconds, of interactive answers, by owner."""
    bound: float
    """Seconds."""
    mean_batch_size: float
    largest_batch_size: int

    def score(self) -> Score:
        """By the formulas above."""
        asked, in_time = sum(self.asked.values()), sum(self.in_time.values())
        p99 = percentile(self._latencies(), 0.99)
        return Score(
            goodput=_share(in_time, min(asked, self.possible)),
            latency=_share(self.bound, p99) if p99 else 0.0,
            batch_size=_share(self.mean_batch_size, self.largest_batch_size),
            fairness=100 * self._jain(),
        )

    def _latencies(self) -> Sequence[float]:
        """In order of size."""
        shares = fair_shares(self.asked, self.possible)
        modest = [times for owner, times in self.latencies.items() if self.asked.get(owner, 0) <= shares.get(owner, 0)]
        return sorted(chain.from_iterable(modest or self.latencies.values()))

    def _jain(self) -> float:
        shares = fair_shares(self.asked, self.possible)
        satisfied = [self.in_time.get(owner, 0) / share for owner, share in shares.items() if share]
        squares = sum(part * part for part in satisfied)
        return sum(satisfied) ** 2 / (len(satisfied) * squares) if squares else 0.0


def fair_shares(asked: Mapping[str, float], possible: float) -> dict[str, float]:
    """Max-min fair: whoever asks for least is served first, with an equal part of what is left at most."""
    shares: dict[str, float] = {}
    left = possible
    for place, (owner, wanted) in enumerate(sorted(asked.items(), key=lambda item: item[1])):
        shares[owner] = min(wanted, left / (len(asked) - place))
        left -= shares[owner]
    return shares


def _share(part: float, whole: float) -> float:
    return 0.0 if math.isinf(whole) or not whole else min(100.0, 100 * part / whole)
