"""Arrivals at one mean rate: Poisson, or in bursts."""

from __future__ import annotations

import math
from itertools import takewhile
from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator

MAX_VARIATION = 30.0
"""Beyond it nearly all gaps are too small for a float, and nearly all requests come in the same instant."""


def poisson(rate: float, source: random.Random) -> Iterator[float]:
    """Endless arrivals of independent callers: the gaps of a Poisson process are exponential.

    Args:
        rate: Mean arrivals a second.
        source: Of chance.

    Raises:
        ConfigurationError: the rate is not above 0.
    """
    _check_rate(rate)
    return _sums(source.expovariate(rate) for _ in iter(int, 1))


def gamma(rate: float, coefficient_of_variation: float, source: random.Random) -> Iterator[float]:
    """Endless arrivals in bursts: a renewal process, whose gaps follow a Gamma distribution.

    So published work makes bursts (AlpaServe, https://arxiv.org/abs/2302.11665).

    Args:
        rate: Mean arrivals a second.
        coefficient_of_variation: Deviation of the gaps over their mean: 1 is Poisson, 4 bursty, 0 a metronome.
        source: Of chance.

    Raises:
        ConfigurationError: the rate is not above 0, or no gaps can vary so.
    """
    _check_rate(rate)
    return (arrival / rate for arrival in _sums(unit_gaps(coefficient_of_variation, source)))


def unit_gaps(coefficient_of_variation: float, source: random.Random) -> Iterator[float]:
    """Endless gaps whose mean is 1.

    Raises:
        ConfigurationError: no gaps can vary so.
    """
    check_variation(coefficient_of_variation)
    return (unit_gap(coefficient_of_variation, source) for _ in iter(int, 1))


def unit_gap(coefficient_of_variation: float, source: random.Random) -> float:
    """A gap whose mean is 1, of such a variation."""
    if coefficient_of_variation == 0:
        return 1.0
    if coefficient_of_variation == 1:
        return source.expovariate(1.0)
    square = coefficient_of_variation**2
    return source.gammavariate(1 / square, square)


def until(times: Iterable[float], seconds: float) -> Iterator[float]:
    """Those before ``seconds``."""
    return takewhile(lambda time: time < seconds, times)


def check_variation(coefficient_of_variation: float) -> None:
    """Refuses what no gaps can have.

    Raises:
        ConfigurationError: it is negative, no number, or too large to be drawn.
    """
    if not 0 <= coefficient_of_variation <= MAX_VARIATION:
        raise ConfigurationError(
            f"coefficient of variation {coefficient_of_variation:g}: expected 0 to {MAX_VARIATION:g}; 1 is Poisson"
        )


def _check_rate(rate: float) -> None:
    if not 0 < rate < math.inf:
        raise ConfigurationError(f"rate {rate:g}: expected more than 0 arrivals a second")


def _sums(gaps: Iterable[float]) -> Iterator[float]:
    arrival = 0.0
    for gap in gaps:
        arrival += gap
        yield arrival
