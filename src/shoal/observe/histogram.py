"""A histogram that takes many observations at once."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

import prometheus_client

if TYPE_CHECKING:
    from collections.abc import Sequence


class Histogram(prometheus_client.Histogram):
    """Prometheus' own, for hot paths: a lock for each bucket that changes instead of two for each observation."""

    def observe_all(self, amounts: Sequence[float]) -> None:
        """Counts each of ``amounts``, as ``observe`` does one."""
        if not amounts:
            return
        self._sum.inc(sum(amounts))
        bounds = self._upper_bounds
        for index, count in Counter([bisect_left(bounds, amount) for amount in amounts]).items():
            self._buckets[index].inc(count)
