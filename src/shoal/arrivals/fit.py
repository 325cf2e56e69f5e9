"""A trace in few figures: a rate and a coefficient of variation for each window; and such arrivals made anew."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.arrivals.curve import Piece, along
from shoal.arrivals.processes import MAX_VARIATION
from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Sequence

_FEWEST_GAPS = 10
"""Fewer tell nothing about their variation."""


@dataclass(frozen=True, slots=True)
class Window:
    """What is known of a stretch of time."""

    seconds: float
    rate: float
    """Arrivals a second."""
    coefficient_of_variation: float
    """Of the gaps that end in it; 1 where they are too few to tell."""


def fit(times: Iterable[float], window_seconds: float) -> tuple[Window, ...]:
    """The "Gamma fit by window" recipe (AlpaServe, https://arxiv.org/abs/2302.11665).

    Args:
        times: Arrivals in order, read once; see ``trace``.
        window_seconds: Long enough for tens of arrivals each, and short against what changes.

    Returns:
        Windows from 0 on, each with its end. The last one, which the trace may leave early, ends with the last arrival.

    Raises:
        ConfigurationError: the window has no length, or there are no arrivals.
    """
    if not 0 < window_seconds < math.inf:
        raise ConfigurationError(f"window of {window_seconds:g} s: expected more than 0 seconds")
    windows: list[Window] = []
    gaps, last = _Gaps(), 0.0
    for time in times:
        while time > (len(windows) + 1) * window_seconds:
            windows.append(gaps.window(window_seconds))
            gaps = _Gaps()
        gaps.add(time - last)
        last = time
    if rest := last - len(windows) * window_seconds:
        windows.append(gaps.window(rest))
    if not any(window.rate for window in windows):
        raise ConfigurationError("no arrivals to fit: expected one after second 0 or more")
    return tuple(windows)


def synthetic(windows: Sequence[Window], source: random.Random) -> Iterator[float]:
    """Arrivals of the same rates and variations; they end with the last window."""
    return along((Piece(each.seconds, each.rate, each.rate, each.coefficient_of_variation) for each in windows), source)


class _Gaps:
    """Mean and variation of the gaps of a window (Welford's running sums)."""

    def __init__(self) -> None:
        self._number = 0
        self._mean = self._squares = 0.0

    def add(self, gap: float) -> None:
        self._number += 1
        off = gap - self._mean
        self._mean += off / self._number
        self._squares += off * (gap - self._mean)

    def window(self, seconds: float) -> Window:
        known = self._number >= _FEWEST_GAPS and self._mean > 0
        variation = math.sqrt(self._squares / (self._number - 1)) / self._mean if known else 1.0
        return Window(seconds, self._number / seconds, min(variation, MAX_VARIATION))
