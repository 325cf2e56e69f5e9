from __future__ import annotations

import json
import pickle
from dataclasses import replace

from shoal.client.load.tally import LoadResult, merge
from shoal.client.results import Timing
from shoal.errors import NotFound, Overloaded


def timing(batch_size: int) -> Timing:
    return Timing(
        queue_us=10, fetch_us=20, decode_us=30, compute_us=40, upload_us=0, total_us=100, batch_size=batch_size
    )


def result(*latencies: float, batch_size: int = 1) -> LoadResult:
    whole = LoadResult(duration_seconds=2.0, answered=len(latencies), cpu_seconds=0.5)
    for latency in latencies:
        whole.add(latency, 0.001, timing(batch_size))
    return whole


def test_summary() -> None:
    whole = result(0.3, 0.1, 0.2)
    whole.add_error(Overloaded("full"))
    whole.add_error(Overloaded("full again"))
    summary = json.loads(json.dumps(whole.summary()))
    assert summary["images_per_s"] == 1.5
    assert summary["latency_ms"] == {"p50": 200.0, "p95": 300.0, "p99": 300.0, "max": 300.0}
    assert summary["errors"] == {"RESOURCE_EXHAUSTED": 2}
    assert summary["reasons"] == {"RESOURCE_EXHAUSTED": "full"}
    assert summary["stage_mean_us"] == {"upload": 0, "queue": 10, "fetch": 20, "decode": 30, "compute": 40}
    assert summary["send_lag_ms"] == {"mean": 1.0, "max": 1.0}


def test_nothing_measured_is_null_not_zero() -> None:
    summary = LoadResult().summary()
    assert summary["images_per_s"] == 0
    assert summary["latency_ms"]["p50"] is None
    assert summary["mean_batch_size"] is None
    assert summary["stream_share"] is None


def test_mean_batch_size_is_over_batches() -> None:
    whole = merge([result(*[0.1] * 8, batch_size=8), result(0.1, batch_size=1)])
    assert whole.mean_batch_size == 4.5  # nine requests in two batches


def test_what_a_cache_answered_was_in_no_batch() -> None:
    whole = merge([result(*[0.1] * 8, batch_size=8), result(0.1), LoadResult()])
    for share in (whole, empty := LoadResult()):
        share.add(0.1, 0.001, replace(timing(0), cached=True))
    assert whole.mean_batch_size == 4.5
    assert empty.mean_batch_size == 0
    assert merge([whole, empty]).summary()["mean_batch_size"] == 4.5


def test_shares_add_up() -> None:
    shares = [result(0.1, 0.2), result(0.3)]
    shares[0].add_error(NotFound("no image"))
    shares[1].add_error(NotFound("no image"))
    shares[0].sent.update(alone=1, by_stream=2)
    shares[1].sent.update(by_stream=1)
    whole = merge([pickle.loads(pickle.dumps(share)) for share in shares])
    assert (whole.answered, whole.duration_seconds, whole.cpu_seconds) == (3, 2.0, 1.0)
    assert sorted(whole.latencies) == [0.1, 0.2, 0.3]
    assert whole.failed.codes == {"NOT_FOUND": 2}
    assert whole.failed.reasons == {"NOT_FOUND": "no image"}
    assert whole.summary()["stream_share"] == 0.75
