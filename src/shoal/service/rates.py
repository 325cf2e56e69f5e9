"""Calls a second that the router can count."""

from __future__ import annotations

from typing import Final

LEAST: Final = 0.001


def a_rate_that_envoy_takes(rate: float) -> float:
    """``rate``, in calls a second; 0: no limit.

    Raises:
        ValueError: it is tiny. Its refill interval would be beyond Envoy's range: Envoy would refuse every key and
            route with it.
    """
    if 0 < rate < LEAST:
        raise ValueError(f"must be 0 (no limit) or {LEAST} and more")
    return rate
