"""Distributions of times, in seconds. Each implements ``scenario.Spread``."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.simulate.scenario import Spread

_Z99: Final = 2.3263478740408408
"""99 of 100 are at most so many standard deviations above the mean of a normal distribution."""


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same."""

    value: float = 0.0

    def draw(self, _: random.Random) -> float:
        """Itself."""
        return self.value


@dataclass(frozen=True, slots=True)
class Uniform:
    """Between two."""

    least: float
    most: float

    def draw(self, source: random.Random) -> float:
        """Any of them, each as likely."""
        return self.least + (self.most - self.least) * source.random()


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Skewed to the right, as times of networks and stores are."""

    median: float
    sigma: float
    """The standard deviation of the logarithm."""

    @classmethod
    def through(cls, p50: float, p99: float) -> LogNormal:
        """The one with these percentiles. Raises ConfigurationError where they aren't in order."""
        if not 0 < p50 <= p99:
            raise ConfigurationError(f"p50 is {p50:g} and p99 {p99:g}: expected 0 < p50 <= p99")
        return cls(p50, math.log(p99 / p50) / _Z99)

    @property
    def mean(self) -> float:
        """Of all of them."""
        return self.median * math.exp(self.sigma**2 / 2)

    def draw(self, source: random.Random) -> float:
        """One of them."""
        return self.median * math.exp(source.gauss(0.0, self.sigma))


@dataclass(frozen=True, slots=True)
class Empirical:
    """As measured: values between neighbouring bounds are equally likely."""

    bounds: tuple[float, ...]
    """In order; the first is the least value."""
    shares: tuple[float, ...]
    """Which part is at most each bound; from 0, or what is exactly the first bound, to 1."""

    @classmethod
    def of_samples(cls, samples: Sequence[float]) -> Empirical:
        """The values, and those between them. Raises ConfigurationError where there is none, or a negative one."""
        ordered = sorted(samples)
        if not ordered or not ordered[0] >= 0 or not math.isfinite(ordered[-1]):
            raise ConfigurationError(f"{len(ordered)} measured times: expected some, each finite and 0 or more")
        last = max(1, len(ordered) - 1)
        return cls(tuple(ordered), tuple(number / last for number in range(len(ordered))))

    @classmethod
    def of_buckets(cls, counts: Mapping[float, float]) -> Empirical:
        """A Prometheus histogram: how many took at most so many seconds, by bucket, which is cumulative.

        What is beyond the last finite bound counts as that bound: the histogram doesn't say how long it took.

        Raises:
            ConfigurationError: it is empty, counts sink, or no bound is finite.
        """
        ordered = sorted(counts.items())
        finite = [(bound, count) for bound, count in ordered if math.isfinite(bound)]
        total = ordered[-1][1] if ordered else 0
        if not finite or not total > 0:
            raise ConfigurationError("a histogram without finite buckets, or in which nothing was counted")
        if any(later < earlier for (_, earlier), (_, later) in pairwise(ordered)) or finite[0][0] < 0:
            raise ConfigurationError("a histogram whose counts sink, or with negative bounds: buckets are cumulative")
        bounds, shares = [0.0, *(bound for bound, _ in finite)], [0.0, *(count / total for _, count in finite)]
        if shares[-1] < 1:
            bounds, shares = [*bounds, bounds[-1]], [*shares, 1.0]
        return cls(tuple(bounds), tuple(shares))

    def draw(self, source: random.Random) -> float:
        """One of them."""
        share = source.random()
        after = min(bisect_right(self.shares, share), len(self.shares) - 1)
        if not after:
            return self.bounds[0]
        low, high = self.shares[after - 1], self.shares[after]
        part = (share - low) / (high - low) if high > low else 1.0
        return self.bounds[after - 1] + min(1.0, part) * (self.bounds[after] - self.bounds[after - 1])


@dataclass(frozen=True, slots=True)
class Sum:
    """One after the other: fetch and decode."""

    parts: tuple[Spread, ...]

    def draw(self, source: random.Random) -> float:
        """One of each, added."""
        return sum(part.draw(source) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Sometimes:
    """Nothing, but for a share."""

    spread: Spread
    share: float
    """Which part isn't nothing."""

    def draw(self, source: random.Random) -> float:
        """One of it, or 0."""
        return self.spread.draw(source) if self.share >= 1 or source.random() < self.share else 0.0


def median(spread: Spread, draws: int = 2001) -> float:
    """Of so many draws; the same each time."""
    source = random.Random(1)  # no secret
    return sorted(spread.draw(source) for _ in range(draws))[draws // 2]
