from __future__ import annotations

import json
import pickle
from array import array
from itertools import pairwise

import pytest

from shoal.client.load.record import Record
from shoal.client.load.tally import LoadResult, merge
from shoal.client.report.figures import Figures, batch_share, bin_seconds, curve, histogram
from shoal.client.results import Timing
from shoal.errors import NotFound, Overloaded

SETTINGS = {"rate": None, "processes": 1}


def timing(batch_size: int = 2, upload_us: int = 0) -> Timing:
    return Timing(
        queue_us=1000,
        fetch_us=2000,
        decode_us=3000,
        compute_us=4000,
        upload_us=upload_us,
        total_us=0,
        batch_size=batch_size,
    )


def recorded(*answers: tuple[float, float], seconds: float = 1.0) -> LoadResult:
    """Of (when, latency), in seconds."""
    result = LoadResult(duration_seconds=seconds, record=Record())
    for when, latency in answers:
        result.arrived(when)
        result.add(latency, 0.0, timing(), when)
    return result


@pytest.mark.parametrize(
    ("duration", "answered", "width"),
    [
        (10, 10**6, 0.1),
        (20, 10**6, 0.2),
        (60, 10**6, 1.0),
        (3600, 10**6, 50.0),
        (10, 300, 1.0),
        (10, 0, 10.0),
        (0.1, 0, 0.1),
    ],
)
def test_bins_are_few_and_hold_enough(duration: float, answered: int, width: float) -> None:
    assert bin_seconds(duration, answered) == pytest.approx(width)


def test_the_last_bin_may_be_short_and_still_counts_by_the_second() -> None:
    result = recorded(*((0.01 * number, 0.1) for number in range(150)), seconds=1.5)
    figures = Figures.of(result, SETTINGS)
    assert figures.bin_seconds == 0.5
    assert [one.answers_per_s for one in figures.bins] == pytest.approx([100, 100, 100], rel=0.03)


def test_answers_and_errors_are_in_the_bins_of_their_time() -> None:
    result = recorded((0.05, 0.1), (0.06, 0.3), (0.95, 0.2), (7.0, 0.9), seconds=1.0)
    result.add_error(Overloaded("full"), 0.5)
    result.add_error(NotFound("gone"), 9.0)
    bins = Figures.of(result, SETTINGS).bins
    assert len(bins) == 1
    assert bins[0].answers_per_s == 3
    assert bins[0].errors_per_s == {"NOT_FOUND": 0, "RESOURCE_EXHAUSTED": 1}
    assert (bins[0].p50_ms, bins[0].p99_ms) == (200, 300)


def test_every_latency_is_in_one_bucket() -> None:
    latencies = sorted([0.0, 0.000999, 0.001, 0.0015, 0.01, 3.0])
    buckets = histogram(latencies)
    assert sum(bucket.count for bucket in buckets) == len(latencies)
    assert all(low.high_ms == high.low_ms for low, high in pairwise(buckets))
    assert buckets[-1].low_ms <= 3000 < buckets[-1].high_ms
    assert histogram([]) == []


def test_the_curve_ends_where_ten_are_left() -> None:
    quantiles = [quantile for quantile, _ in curve([number / 1000 for number in range(1000)])]
    assert quantiles[-1] == 0.99
    assert dict(curve([0.001, 0.002, 0.003, 0.004]))[0.5] == 2
    assert curve([]) == []


def test_a_batch_counts_once() -> None:
    assert batch_share([8] * 8 + [1, 1, 1, 0]) == {1: 0.75, 8: 0.25}
    assert batch_share([]) == {}


def test_the_rest_is_what_no_stage_tells() -> None:
    figures = Figures.of(recorded((0.1, 0.025), (0.2, 0.005)), SETTINGS)
    means = {stage.name: stage.mean_ms for stage in figures.stages}
    assert means == {"upload": 0, "queue": 1, "fetch": 2, "decode": 3, "compute": 4, "rest": 7.5}


def test_shares_of_processes_are_one() -> None:
    shares = [pickle.loads(pickle.dumps(recorded((0.1, 0.1)))), recorded((0.9, 0.2))]
    shares[1].add_error(Overloaded("full"), 0.3)
    whole = merge(shares)
    assert whole.record is not None
    assert whole.record.finished == array("f", [0.1, 0.9])
    assert list(whole.latencies) == [0.1, 0.2]
    assert json.dumps(Figures.of(whole, SETTINGS).to_json())
    assert Figures.of(whole, SETTINGS).bins[0].errors_per_s == {"RESOURCE_EXHAUSTED": 1}


def test_without_a_wish_nothing_is_recorded() -> None:
    assert merge([LoadResult(), LoadResult()]).record is None


def test_nothing_answered_draws_nothing() -> None:
    figures = Figures.of(LoadResult(duration_seconds=1.0, record=Record()), SETTINGS)
    assert (figures.histogram, figures.curve, figures.batch_share, figures.stages) == ([], [], {}, [])


@pytest.mark.parametrize(
    ("rate", "cpu", "lag", "told"),
    [(None, 0.95, 0.0, "cores"), (None, 0.5, 0.05, None), (50.0, 0.5, 0.05, "late"), (50.0, 0.5, 0.001, None)],
)
def test_a_generator_at_its_limit_is_named(rate: float | None, cpu: float, lag: float, told: str | None) -> None:
    result = recorded((0.1, 0.1))
    result.cpu_seconds, result.lag_seconds = cpu, lag
    busy = Figures.of(result, SETTINGS | {"rate": rate}).busy_generator
    assert (told in busy if busy and told else busy) == (True if told else None)
