"""A batcher's metrics as figures: the real registry's text, and what isn't ours."""

from __future__ import annotations

import pytest

from shoal.console.figures import Figures, read
from shoal.observe import metrics

MODEL = "figures-test"


def test_what_a_batcher_counted_is_read_from_its_own_text() -> None:
    for priority in ("interactive", "bulk"):
        metrics.BATCHER_REQUESTS.labels(MODEL, "OK", priority).inc(3)
        metrics.BATCHER_LATENCY.labels(MODEL, priority).observe(0.003)
    metrics.BATCHER_REQUESTS.labels(MODEL, "NOT_FOUND", "bulk").inc()
    metrics.BATCHER_BATCH_SIZE.labels(MODEL).observe(4)
    metrics.BATCHER_BATCH_SIZE.labels(MODEL).observe(2)
    metrics.BATCHER_DEPTH.labels(MODEL).set(5)
    metrics.BATCHER_IN_FLIGHT.labels(MODEL).set(2)
    found = read(metrics.text(metrics.BATCHER).decode())[MODEL]
    assert found.answered == {"OK": 6, "NOT_FOUND": 1}
    assert (found.batched, found.batches, found.waiting, found.in_flight) == (6, 2, 5, 2)
    assert dict(found.latency)[0.002] == 0
    assert dict(found.latency)[0.004] == 2
    assert found.latency[-1] == (-1, 2)
    assert [limit for limit, _ in found.latency[:-1]] == sorted(limit for limit, _ in found.latency[:-1])


def test_another_programs_metrics_say_nothing() -> None:
    assert read('# HELP up Whether\nup 1\nsome_other{model="m"} 7\n') == {}
    assert Figures().latency == []


def test_what_is_no_metrics_is_an_error() -> None:
    with pytest.raises(ValueError, match="seven"):
        read('shoal_batcher_queue_depth{model="m"} seven\n')
