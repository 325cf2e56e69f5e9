"""The highest rate that keeps a latency objective: a search over probes. No clock, no I/O.

As MLPerf's server scenario asks: Poisson arrivals, and a quantile of their latency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoal.client.load.objective import Objective, Probe

RESOLUTION = 0.05
"""How far, at most, a rate that failed is above the one that is told."""
CONFIRMING = 3
"""So many times as long as a probe is the run that confirms the best."""
_FIRST_LOAD = 0.5
"""Of what one caller gets: a rate that nearly any service can answer."""
_LOWEST_LOAD = 0.1
_OBJECTIVES = 40
"""A probe lasts so many times the objective. At a rate that is a 20th too high the wait grows by a 20th of the time, so
that all requests of its second half are late."""


@dataclass(slots=True)
class RateSearch:
    """One search: doubles the rate until a probe fails, then halves what is between.

    A probe that fails is repeated once before it counts. What is known so far can be read at any time.
    """

    probe: Callable[[float, float], Probe]
    """Offers a rate to a service at rest for so many measured seconds."""
    objective: Objective
    window_seconds: float
    """Of a probe, at least."""
    probes: list[Probe] = field(default_factory=list)
    """In the order in which they were made."""
    best: Probe | None = None
    """The highest that was kept; None: none yet."""
    failed_rate: float = math.inf
    """The lowest that was not."""
    confirmed: bool = False

    def seconds(self, rate: float) -> float:
        """How long a probe has to be to tell: enough requests, and a queue that grows has time to show it."""
        return max(self.window_seconds, self.objective.fewest_requests / rate, _OBJECTIVES * self.objective.seconds)

    def run(self, single_seconds: float) -> Probe:
        """The best rate, confirmed by a longer run.

        Args:
            single_seconds: What a single request takes, in the median.

        Raises:
            ConfigurationError: a single request takes longer than the objective, or no rate keeps it.
        """
        if single_seconds > self.objective.seconds:
            raise ConfigurationError(
                self._impossible(single_seconds, "a single request on an idle service takes longer")
            )
        rate = _FIRST_LOAD / single_seconds
        while not self._keeps(rate):
            if rate < 2 * _LOWEST_LOAD / single_seconds:
                raise ConfigurationError(self._impossible(single_seconds, f"not even {rate:,.2g} requests/s keep it"))
            rate /= 2
        while self.failed_rate > 2 * rate and self._keeps(2 * rate):
            rate *= 2
        self._narrow()
        return self._confirm(single_seconds)

    def _narrow(self) -> None:
        assert self.best is not None
        while self.failed_rate > self.best.rate * (1 + RESOLUTION):
            self._keeps(math.sqrt(self.best.rate * self.failed_rate))

    def _confirm(self, single_seconds: float) -> Probe:
        """Steps down from the best until a longer run keeps the objective, too."""
        assert self.best is not None
        rate, lowest = self.best.rate, self.best.rate / 2
        while not self._keeps(rate, CONFIRMING):
            rate /= 1 + RESOLUTION
            if rate < lowest:
                raise ConfigurationError(self._impossible(single_seconds, "short runs keep it, and longer ones don't"))
        self.confirmed = True
        return self.best

    def _keeps(self, rate: float, times: int = 1) -> bool:
        """Whether one of two probes does."""
        for _ in range(2):
            found = self.probe(rate, times * self.seconds(rate))
            self.probes.append(found)
            if found.kept:
                self.best = found
                return True
        self.failed_rate = rate
        if self.best is not None and self.best.rate >= rate:
            self.best = None
        return False

    def _impossible(self, single_seconds: float, reason: str) -> str:
        told = f"the objective of {1000 * self.objective.seconds:g} ms can't be kept: {reason}"
        return f"{told}; one request alone takes {1000 * single_seconds:.1f} ms in the median"
