"""Watches the batches of one load: when it is settled, when enough was measured, and what it gave. No clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shoal.errors import ConfigurationError
from shoal.profile.records import Round
from shoal.runtime.percentile import percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

_STRETCH_SECONDS: Final = 0.25
_STRETCH_ROUNDS: Final = 2
"""Of all callers: a stretch has seen each of them more than once."""
_TOLERANCE: Final = 0.05


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a load lasts."""

    duration_seconds: float = 3.0
    """That are measured."""
    warm_up_seconds: float = 10.0
    """After so long it is measured even if its rate never was steady."""

    def check(self) -> None:
        """Raises ConfigurationError where it makes no sense."""
        if not 0 < self.duration_seconds < math.inf:
            raise ConfigurationError(f"--duration {self.duration_seconds:g}: expected seconds, more than 0")
        if not 0 <= self.warm_up_seconds < math.inf:
            raise ConfigurationError(f"--warm-up {self.warm_up_seconds:g}: expected seconds, 0 or more")


class Observer:
    """Is told of each finished batch.

    Warm-up ends when the rates of two successive stretches, each a quarter of a second or longer, differ by less than
    5 %, or at its bound. The window begins and ends with a finished batch, so its rate has no part of a batch in it.
    """

    def __init__(self, began: float, batch: int, concurrency: int, pace: Pace) -> None:
        """``began``: when the load did, in seconds of the caller's clock."""
        self._batch = batch
        self._pace = pace
        self._least = _STRETCH_ROUNDS * concurrency
        self._began = self._stretch = self._window = began
        self._count = 0
        self._rate: float | None = None
        self._warm = False
        self._settled = False
        self._latencies: list[float] = []
        self._ended: float | None = None

    @property
    def done(self) -> bool:
        """Whether enough was measured."""
        return self._ended is not None

    def finished(self, started: float, now: float) -> None:
        """A batch that was sent at ``started`` was answered at ``now``."""
        if self.done:
            return
        if not self._warm:
            self._warming(now)
            return
        self._latencies.append(now - started)
        if now - self._window >= self._pace.duration_seconds:
            self._ended = now

    def round(self) -> Round:
        """What was measured; only once it is ``done``."""
        assert self._ended is not None
        seconds = self._ended - self._window
        ordered = sorted(self._latencies)
        return Round(
            images_per_s=round(self._batch * len(ordered) / seconds, 3),
            p50_ms=_percentile_ms(ordered, 0.50),
            p99_ms=_percentile_ms(ordered, 0.99),
            batches=len(ordered),
            seconds=round(seconds, 4),
            warm_up_s=round(self._window - self._began, 3),
            settled=self._settled,
        )

    def _warming(self, now: float) -> None:
        self._count += 1
        elapsed = now - self._stretch
        if elapsed >= _STRETCH_SECONDS and self._count >= self._least:
            rate = self._count / elapsed
            self._settled = self._rate is not None and abs(rate - self._rate) < _TOLERANCE * max(rate, self._rate)
            self._rate, self._stretch, self._count = rate, now, 0
        if self._settled or now - self._began >= self._pace.warm_up_seconds:
            self._warm = True
            self._window = now


def _percentile_ms(ordered: Sequence[float], quantile: float) -> float:
    """``ordered``: seconds, at least one."""
    found = percentile(ordered, quantile)
    assert found is not None
    return round(1000 * found, 3)
