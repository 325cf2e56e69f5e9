"""Arrivals whose rate changes: by the hour, as a curve grows, or as pieces that were fitted to a trace."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Literal

from shoal.arrivals.processes import check_variation, unit_gap
from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Sequence

HOUR_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of time in which the rate changes evenly, or not at all."""

    seconds: float
    begin: float
    """Arrivals a second at its begin; 0 or more."""
    end: float
    coefficient_of_variation: float = 1.0
    """Of the gaps that begin here; see ``gamma``."""

    @property
    def expected(self) -> float:
        """Arrivals in the mean."""
        return self.seconds * (self.begin + self.end) / 2

    def after(self, expected: float) -> float:
        """When, since its begin, so many arrivals are expected: at most ``self.expected`` of them.

        Solves ``begin * t + (end - begin) / seconds * t**2 / 2 = expected`` in the form that divides by no small
        difference.
        """
        slope = (self.end - self.begin) / self.seconds
        root = math.sqrt(max(self.begin**2 + 2 * slope * expected, 0.0))
        return min(2 * expected / (self.begin + root), self.seconds) if expected else 0.0


def by_hour(
    rates: Sequence[float | None],
    source: random.Random,
    coefficient_of_variation: float = 1.0,
    *,
    between: Literal["constant", "linear"] = "constant",
    hour_seconds: float = HOUR_SECONDS,
) -> Iterator[float]:
    """Endless arrivals that follow a curve, which begins anew after its last hour.

    Args:
        rates: Mean arrivals a second in each hour, 24 for a day.
        source: Of chance.
        coefficient_of_variation: Of the gaps, against the rate of their time; see ``gamma``.
        between: ``constant``: a rate holds for its hour. ``linear``: it is that of the hour's begin, and the rate goes
            evenly to that of the next.
        hour_seconds: How long an hour takes: fewer than 3,600 play a day faster, at the same rates.

    Raises:
        ConfigurationError: an hour has no rate, or one that is negative or no number; all are 0.
    """
    checked = check_rates(rates)
    check_variation(coefficient_of_variation)
    if not 0 < hour_seconds < math.inf:
        raise ConfigurationError(f"seconds of an hour {hour_seconds:g}: expected more than 0")
    ends = (*checked[1:], checked[0]) if between == "linear" else checked
    pieces = [
        Piece(hour_seconds, begin, end, coefficient_of_variation) for begin, end in zip(checked, ends, strict=True)
    ]
    return along(cycle(pieces), source)


def along(pieces: Iterable[Piece], source: random.Random) -> Iterator[float]:
    """Arrivals whose rate is that of ``pieces``, one after the other; they end with them.

    By a change of time: gaps are drawn with mean 1 and count expected arrivals, which the rates turn into seconds. So
    no gap ends at a border, and cv 1 is the Poisson process of that rate (Cinlar, Introduction to Stochastic Processes,
    chapter 4.7).
    """
    begun, left = 0.0, None
    for piece in pieces:
        done = 0.0
        if left is None:
            left = unit_gap(piece.coefficient_of_variation, source)
        while done + left <= piece.expected and piece.expected > 0:
            done += left
            yield begun + piece.after(done)
            left = unit_gap(piece.coefficient_of_variation, source)
        left = max(left - (piece.expected - done), 0.0)
        begun += piece.seconds


def growth(rates: Sequence[float | None], a_month: float, months: float) -> tuple[float, ...]:
    """The curve after ``months``, each of which adds the share ``a_month`` to the one before: 0.1 is 10 %.

    Raises:
        ConfigurationError: the curve has a fault (see ``by_hour``), or the share is no share of this kind.
    """
    if not -1 < a_month <= 1:
        raise ConfigurationError(f"growth {a_month:g} a month: expected a share above -1 and up to 1; 0.1 is 10 %")
    if not math.isfinite(months):
        raise ConfigurationError(f"growth for {months:g} months: expected a number")
    factor = (1 + a_month) ** months
    return tuple(rate * factor for rate in check_rates(rates))


def check_rates(rates: Sequence[float | None]) -> tuple[float, ...]:
    """The curve, if it has no fault.

    Raises:
        ConfigurationError: it is empty, an hour has no rate, or one that is negative or no number; all are 0.
    """
    checked: list[float] = []
    for hour, rate in enumerate(rates):
        if rate is None:
            raise ConfigurationError(f"hour {hour} of the curve has no rate: give each hour one; 0 is no arrivals")
        if not 0 <= rate < math.inf:
            raise ConfigurationError(f"hour {hour} of the curve: rate {rate:g}: expected 0 or more arrivals a second")
        checked.append(float(rate))
    if not any(checked):
        raise ConfigurationError("the curve has no hour with arrivals: expected a rate above 0 in one of them")
    return tuple(checked)
