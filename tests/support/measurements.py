"""Measurements as a benchmark makes them."""

from __future__ import annotations

from benchmarks.common import cpu
from benchmarks.common.cpu import Spent
from benchmarks.common.figures import Measurement


def measured(images: int, seconds: float = 2.0, **components: float) -> Measurement:
    details = {
        "latency_ms": {"p50": 10.0 * images, "p95": 1.0, "p99": 1.0},
        "stage_mean_us": {"queue": 1000},
        "mean_batch_size": 8.0,
    }
    return Measurement(images, Spent(seconds, dict.fromkeys(cpu.COMPONENTS, 0.0) | components, 0.1), details)
