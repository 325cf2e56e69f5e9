"""When the requests of a load come: anew with each ``iter``, so that a scenario may be simulated twice, or in parts."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from shoal.arrivals import curve, processes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from fractions import Fraction


@runtime_checkable
class Divisible(Protocol):
    """Times that know how many they are, and which of them a part of the service gets."""

    def __iter__(self) -> Iterator[float]:
        """Seconds, in order."""
        ...

    def expected(self, seconds: float) -> float:
        """How many come in so many seconds, in the mean."""
        ...

    def part(self, share: Fraction, number: int, *, by_chance: bool) -> Iterable[float]:
        """Those of one of several parts, which differ by ``number`` in their chance.

        Args:
            share: A 1/4: every fourth, or each with a probability of 1/4.
            number: Which part.
            by_chance: Whether chance decides which they are.
        """
        ...


@dataclass(frozen=True, slots=True)
class Steady:
    """At one mean rate; see ``arrivals.processes.gamma``."""

    per_s: float
    coefficient_of_variation: float
    seed: str

    def __iter__(self) -> Iterator[float]:
        """Seconds, endless."""
        return processes.gamma(self.per_s, self.coefficient_of_variation, random.Random(self.seed))

    def expected(self, seconds: float) -> float:
        """See ``Divisible``."""
        return self.per_s * seconds

    def part(self, share: Fraction, number: int, *, by_chance: bool) -> Steady:
        """See ``Divisible``."""
        varies = part_variation(self.coefficient_of_variation, share, by_chance=by_chance)
        return Steady(float(self.per_s * share), varies, f"{self.seed}/part {number}")


@dataclass(frozen=True, slots=True)
class ByHour:
    """By a curve of a day; see ``arrivals.curve.by_hour``."""

    rates: Sequence[float]
    hour_seconds: float
    coefficient_of_variation: float
    seed: str

    def __iter__(self) -> Iterator[float]:
        """Seconds, endless."""
        source, varies = random.Random(self.seed), self.coefficient_of_variation
        return curve.by_hour(self.rates, source, varies, hour_seconds=self.hour_seconds)

    def expected(self, seconds: float) -> float:
        """See ``Divisible``."""
        days, rest = divmod(seconds / self.hour_seconds, len(self.rates))
        whole = int(rest)
        hours = days * sum(self.rates) + sum(self.rates[:whole]) + (rest - whole) * self.rates[whole]
        return hours * self.hour_seconds

    def part(self, share: Fraction, number: int, *, by_chance: bool) -> ByHour:
        """See ``Divisible``."""
        varies = part_variation(self.coefficient_of_variation, share, by_chance=by_chance)
        rates = [float(rate * share) for rate in self.rates]
        return replace(self, rates=rates, coefficient_of_variation=varies, seed=f"{self.seed}/part {number}")


@dataclass(frozen=True, slots=True)
class Recorded:
    """Known times, in order: a trace's."""

    times: Sequence[float]

    def __iter__(self) -> Iterator[float]:
        """Seconds."""
        return iter(self.times)

    def expected(self, seconds: float) -> float:
        """See ``Divisible``."""
        return sum(1 for _ in takewhile(lambda time: time < seconds, self.times))

    def part(self, share: Fraction, number: int, *, by_chance: bool) -> Recorded:
        """See ``Divisible``; each part begins with another one of them."""
        if by_chance:
            source = random.Random(f"part {number}")
            return Recorded([time for time in self.times if source.random() < share])
        kept, of = share.numerator, share.denominator
        return Recorded([time for place, time in enumerate(self.times, number) if place * kept % of < kept])


def part_variation(coefficient_of_variation: float, share: Fraction, *, by_chance: bool) -> float:
    """The coefficient of variation of the gaps between a part's requests.

    Every k-th of a renewal process with Gamma gaps has the sums of k of them for gaps, which are Gamma, too, and vary
    as ``1 / sqrt(k)``: so the requests of a part vary by as large a share of them as those of the whole do over the
    same time. Those that chance chooses have sums of a geometric number of gaps: ``1 + share * (cv**2 - 1)`` is the
    square of what they vary by, and what is left of a Poisson process is one.
    """
    square = coefficient_of_variation**2
    return math.sqrt(1 + share * (square - 1) if by_chance else square * share)
