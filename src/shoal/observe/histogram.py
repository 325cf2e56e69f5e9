"""A histogram that takes many values at once."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

import prometheus_client

if TYPE_CHECKING:
    from collections.abc import Sequence


class Histogram(prometheus_client.Histogram):
    """Prometheus' own; a value costs a tenth where it comes with others."""

    def observe_all(self, amounts: Sequence[float]) -> None:
        """Each of ``amounts``, as ``observe`` does: in the first bucket whose bound isn't less."""
        if amounts:
            self._sum.inc(sum(amounts))
            for bucket, count in Counter(bisect_left(self._upper_bounds, amount) for amount in amounts).items():
                self._buckets[bucket].inc(count)
