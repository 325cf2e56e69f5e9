"""How long a batch takes, learned from those that came back."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

_HALF_LIFE_BATCHES = 32
"""After so many batches an observation counts half: a model that slows down is known within a second under load."""
_DECAY = 0.5 ** (1 / _HALF_LIFE_BATCHES)
_ALIKE = 1 / 8
"""Sizes whose standard deviation is this share of their mean, or less, say little of a batch of another size."""
_ODD = 8.0
"""So many times what is usual is odd: such a batch sat out its engine's restart, and says nothing about the next."""
_ODD_SECONDS = 0.1
"""Less than this never is."""
_ODD_IN_A_ROW = 8
"""More odd batches than this are what is usual from now on."""
_LATEST = 256
"""Observations of which a tail is known: enough for one in a hundred."""


class BatchTimes:
    """Seconds that a worker needs for a batch, as a line over what is executed of it.

    A weighted least squares fit, whose weights halve every 32 batches, of ``seconds = base + size * slope``, neither of
    which is negative: a larger batch takes no less than a smaller one, and at most in proportion more. So where all
    sizes seen are the same, a smaller one is expected to take as long, and a larger one in proportion.

    Of the requests that are sent some need no execution, such as those whose answers the worker knows, and some need
    several. Nobody knows which before they are sent, so a batch is expected to need as many each as those before.
    """

    def __init__(self) -> None:
        self._sent = self._needed = 0.0
        self._weight = self._size = self._seconds = self._size_size = self._size_seconds = 0.0
        self._mean_size = self._mean = self._slope_down = self._slope_up = 0.0
        self._base = 0.0
        self._deviation = Mean()
        self._odd = 0
        self.known = False
        """Whether any batch came back."""
        self.scatter = 0.0
        """Seconds by which most batches differ at most from what is expected of them: twice the mean deviation."""

    def observe(self, size: int, seconds: float, executed: int = 0, put_off: int = 0) -> None:
        """One batch of ``size`` requests came back.

        Args:
            size: That were sent.
            seconds: That it took.
            executed: For these, within that time; 0: as many.
            put_off: To be executed later: its time says nothing of them.
        """
        executed = executed or size
        if self.known:
            self._odd = self._odd + 1 if seconds > max(_ODD * self.cautious(size), _ODD_SECONDS) else 0
            if 0 < self._odd <= _ODD_IN_A_ROW:
                return
            expected = self.executing(executed) if put_off else self.expected(size)
            self._deviation.observe(abs(seconds - expected))
            self.scatter = 2 * self._deviation.mean
        self.known = True
        self._weight = self._weight * _DECAY + 1
        self._sent = self._sent * _DECAY + size
        self._needed = self._needed * _DECAY + executed + put_off
        self._size = self._size * _DECAY + executed
        self._seconds = self._seconds * _DECAY + seconds
        self._size_size = self._size_size * _DECAY + executed * executed
        self._size_seconds = self._size_seconds * _DECAY + executed * seconds
        self._fit()

    @property
    def share(self) -> float:
        """How many are executed for a request that is sent, at once or later."""
        return self._needed / self._sent if self._sent else 1.0

    def expected(self, size: float) -> float:
        """Seconds that a batch of ``size`` requests takes; 0 before anything is known."""
        return self.executing(size * self.share)

    def executing(self, size: float) -> float:
        """Seconds that a batch takes for which so many are executed."""
        more = size - self._mean_size
        return self._mean + more * (self._slope_up if more > 0 else self._slope_down)

    def cautious(self, size: float) -> float:
        """Seconds that most batches of ``size`` take at most: ``expected``, and twice the mean deviation more."""
        return self.expected(size) + self.scatter

    @property
    def base(self) -> float:
        """Seconds that a batch takes at least, however small it is; 0 where the sizes seen are too much alike."""
        return self._base

    def more(self, seconds: float) -> float:
        """How many requests more a batch takes in ``seconds`` more; may be infinite."""
        if self._slope_up:
            return seconds / (self._slope_up * self.share)
        return math.inf if seconds >= 0 else 0.0

    def largest(self, seconds: float) -> float:
        """The largest size that is expected to take ``seconds`` at most; may be negative, or infinite."""
        more = seconds - self._mean
        slope = self._slope_up if more > 0 else self._slope_down
        if slope:
            return (self._mean_size + more / slope) / self.share
        return math.inf if more >= 0 else 0.0

    def _fit(self) -> None:
        mean_size, mean = self._size / self._weight, self._seconds / self._weight
        proportional = mean / mean_size
        self._mean_size, self._mean, self._slope_down, self._slope_up = mean_size, mean, 0.0, proportional
        variance = self._size_size / self._weight - mean_size**2
        if variance > 1e-9:  # more than one size, up to rounding
            slope = (self._size_seconds / self._weight - mean_size * mean) / variance
            self._slope_down = self._slope_up = min(max(0.0, slope), proportional)
        doubt = (_ALIKE * mean_size) ** 2
        self._base = (mean - self._slope_up * mean_size) * variance / (variance + doubt)


class Mean:
    """The mean of what was observed, in which older ones count less."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0

    def observe(self, value: float) -> None:
        """One more."""
        self._sum = self._sum * _DECAY + value
        self._weight = self._weight * _DECAY + 1

    @property
    def mean(self) -> float:
        """0 before anything is observed."""
        return self._sum / self._weight if self._weight else 0.0


class Arrivals:
    """How often requests come. Those that come together count once: the next ones are no sooner here for it."""

    def __init__(self) -> None:
        self._gap = Mean()
        self._latest = math.inf

    def observe(self, now: float) -> None:
        """One or more came."""
        if now > self._latest:
            self._gap.observe(now - self._latest)
        self._latest = now

    def expected(self, seconds: float) -> float:
        """How often some come in so many seconds; 0 before that is known."""
        return seconds / self._gap.mean if self._gap.mean else 0.0


class Tail:
    """The latest observations, and how large they mostly are at most. A change shows after a few of them."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque()
        self._ordered: list[float] = []

    def __bool__(self) -> bool:
        """Whether anything was observed."""
        return bool(self._ordered)

    def observe(self, value: float) -> None:
        """One more."""
        if len(self._latest) == _LATEST:
            del self._ordered[bisect_left(self._ordered, self._latest.popleft())]
        self._latest.append(value)
        insort(self._ordered, value)

    def most(self, share: float) -> float:
        """What this share of them is at most; 0 before anything is observed, and the largest of a few."""
        count = len(self._ordered)
        return self._ordered[max(0, math.ceil(share * count) - 1)] if count else 0.0
