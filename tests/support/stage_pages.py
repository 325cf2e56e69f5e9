"""Pages of metrics as a worker's histograms of fetch and decode make them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from shoal.simulate.stages import DECODE, FETCH

_BOUNDS = (0.001, 0.002, 0.004, 0.008)


def page(fetch: list[float], decode: list[float], model: str = "a") -> str:
    """Of so many pictures that took so many seconds each."""
    registry = CollectorRegistry()
    for metric, times in ((FETCH, fetch), (DECODE, decode)):
        histogram = Histogram(metric, "seconds", ["model"], buckets=_BOUNDS, registry=registry)
        for time in times:
            histogram.labels(model).observe(time)
    return generate_latest(registry).decode()
