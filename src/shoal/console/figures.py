"""What a batcher's metrics say of each model, as counters: the page makes rates of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.samples import Sample

_SUMS: Final = {
    "shoal_batcher_batch_size_sum": "batched",
    "shoal_batcher_batch_size_count": "batches",
    "shoal_batcher_queue_depth": "waiting",
    "shoal_batcher_in_flight": "in_flight",
}
"""To the field that is their sum."""
_REQUESTS: Final = "shoal_batcher_requests_total"
_LATENCY: Final = "shoal_batcher_request_seconds_bucket"
_USED: Final = (_REQUESTS, _LATENCY, *_SUMS)


class Figures(BaseModel):
    """One model at one batcher. Counters begin anew when the batcher does."""

    answered: dict[str, int] = {}
    """Requests that ended, by the gRPC name of their code."""
    latency: list[tuple[float, int]] = []
    """Requests answered OK within so many seconds, cumulative; the last one, -1, is all of them."""
    batched: int = 0
    """Requests in all batches that closed."""
    batches: int = 0
    waiting: int = 0
    """Requests that wait for a permit, now."""
    in_flight: int = 0
    """Requests at a worker, now."""


def read(text: str) -> dict[str, Figures]:
    """By model, of a batcher's ``/metrics``. Raises ValueError for what is none."""
    lines = "\n".join(line for line in text.splitlines() if line.startswith(_USED))
    found: dict[str, Figures] = {}
    latency: dict[str, dict[float, int]] = {}
    for family in text_string_to_metric_families(lines):
        for sample in family.samples:
            model = sample.labels.get("model", "")
            _count(found.setdefault(model, Figures()), latency.setdefault(model, {}), sample)
    for model, buckets in latency.items():
        found[model].latency = list(_in_order(buckets.items()))
    return found


def _count(figures: Figures, latency: dict[float, int], sample: Sample) -> None:
    """Series that differ in their other labels are added."""
    value = int(sample.value)
    if field := _SUMS.get(sample.name):
        setattr(figures, field, getattr(figures, field) + value)
    elif sample.name == _LATENCY:
        limit = float(sample.labels["le"])
        latency[limit] = latency.get(limit, 0) + value
    elif sample.name == _REQUESTS and value:
        code = sample.labels["code"]
        figures.answered[code] = figures.answered.get(code, 0) + value


def _in_order(buckets: Iterable[tuple[float, int]]) -> Iterable[tuple[float, int]]:
    """JSON knows no infinity."""
    for limit, count in sorted(buckets):
        yield (limit if math.isfinite(limit) else -1, count)
