"""Whether a latency objective was kept, told from as many requests as that takes. No clock, no I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError
from shoal.runtime.percentile import percentile

if TYPE_CHECKING:
    from shoal.client.load.tally import LoadResult

_DOUBT = 0.01
"""How often a service that just misses its objective may pass for one that keeps it (MLPerf's confidence is 99 %)."""
_LATE_SAMPLES = 3
"""A probe is long enough that so many requests may be late: fewer would refuse services that keep it with room."""


@dataclass(frozen=True, slots=True)
class Objective:
    """Of all requests, the share ``quantile`` is answered within ``seconds``."""

    seconds: float
    quantile: float = 0.99

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise ConfigurationError(f"latency objective {self.seconds * 1000:g} ms: expected more than 0")
        if not 0.5 <= self.quantile <= 0.9999:
            raise ConfigurationError(f"quantile {self.quantile:g}: expected 0.5 to 0.9999; 0.99 is the p99")

    @property
    def fewest_requests(self) -> int:
        """That tell enough: 1,001 for the p99, 10,042 for the p99.9."""
        few = _LATE_SAMPLES + 1
        low, high = few, math.ceil(20 * few / (1 - self.quantile))
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.most_late(middle) >= _LATE_SAMPLES else (middle + 1, high)
        return low

    def most_late(self, requests: int) -> int:
        """How many of ``requests`` may be late for the objective to be kept at a confidence of 99 %; -1: too few.

        With k of n late, a service that is late for just the share 1 - quantile would have shown so few with a
        probability of 1 % at most: the binomial bound behind MLPerf's early stopping
        (https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc, "Early stopping criterion").
        """
        late, below = 1 - self.quantile, 0.0
        for number in range(requests + 1):
            ways = math.lgamma(requests + 1) - math.lgamma(number + 1) - math.lgamma(requests - number + 1)
            below += math.exp(ways + number * math.log(late) + (requests - number) * math.log(self.quantile))
            if below > _DOUBT:
                return number - 1
        return requests


@dataclass(frozen=True, slots=True)
class Probe:
    """What came of a load at one rate."""

    rate: float
    """Mean arrivals a second."""
    seconds: float
    """That were measured."""
    requests: int
    """Of the measured window."""
    late: int
    """Answered later than the objective says, refused or failed."""
    failed: int
    """Those of them that had no answer, or, of a pipeline, one that lacks a part."""
    latency: float | None
    """Seconds within which the objective's quantile of requests was answered; None: of too many, never."""
    kept: bool
    """Whether the objective was, beyond doubt."""
    limit: str | None = None
    """Why the load generator may have been the limit."""

    @classmethod
    def of(cls, rate: float, result: LoadResult, objective: Objective, limit: str | None = None) -> Probe:
        """From a load test."""
        whole = result.whole_latencies()
        requests = len(result.latencies) + result.failed.codes.total()
        failed = requests - len(whole)
        late = failed + sum(latency > objective.seconds for latency in whole)
        slowest = percentile([*sorted(whole), *[math.inf] * failed], objective.quantile)
        return cls(
            rate=rate,
            seconds=result.duration_seconds,
            requests=requests,
            late=late,
            failed=failed,
            latency=None if slowest is None or math.isinf(slowest) else slowest,
            kept=late <= objective.most_late(requests),
            limit=limit,
        )
