"""How long a batch takes, learned from those that came back."""

from __future__ import annotations

import math

_HALF_LIFE_BATCHES = 32
"""After so many batches an observation counts half: a model that slows down is known within a second under load."""
_DECAY = 0.5 ** (1 / _HALF_LIFE_BATCHES)
_ODD = 8.0
"""So many times what is usual is odd: such a batch sat out its engine's restart, and says nothing about the next."""
_ODD_SECONDS = 0.1
"""Less than this never is."""
_ODD_IN_A_ROW = 8
"""More odd batches than this are what is usual from now on."""


class BatchTimes:
    """Seconds from a batch's close to its last answer, as a line over its size.

    A weighted least squares fit, whose weights halve every 32 batches, of ``seconds = base + size * slope``. Where all
    sizes seen are the same, or bigger batches seem to take less, it is their mean.
    """

    def __init__(self) -> None:
        self._weight = self._size = self._seconds = self._size_size = self._size_seconds = 0.0
        self._deviation = 0.0
        self._odd = 0

    def observe(self, size: int, seconds: float) -> None:
        """One batch came back."""
        if self._weight:
            self._odd = self._odd + 1 if seconds > max(_ODD * self.cautious(size), _ODD_SECONDS) else 0
            if 0 < self._odd <= _ODD_IN_A_ROW:
                return
            error = abs(seconds - self._line(size))
            self._deviation = _DECAY * self._deviation + (1 - _DECAY) * error
        self._weight = self._weight * _DECAY + 1
        self._size = self._size * _DECAY + size
        self._seconds = self._seconds * _DECAY + seconds
        self._size_size = self._size_size * _DECAY + size * size
        self._size_seconds = self._size_seconds * _DECAY + size * seconds

    def expected(self, size: int) -> float:
        """Seconds that a batch of ``size`` takes; 0 before anything is known."""
        return self._line(size) if self._weight else 0.0

    def cautious(self, size: int) -> float:
        """Seconds that most batches of ``size`` take at most: ``expected``, and twice the mean deviation more."""
        return self.expected(size) + 2 * self._deviation

    def _line(self, size: int) -> float:
        mean_size, mean = self._size / self._weight, self._seconds / self._weight
        variance = self._size_size / self._weight - mean_size**2
        if variance < 1e-9 or math.isnan(variance):  # one size only, up to rounding
            return mean
        slope = max(0.0, (self._size_seconds / self._weight - mean_size * mean) / variance)
        return max(0.0, mean + slope * (size - mean_size))
