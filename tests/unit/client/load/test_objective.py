from __future__ import annotations

import math
from array import array
from collections import Counter
from fractions import Fraction

import pytest

from shoal.client.load.error_tally import ErrorTally
from shoal.client.load.objective import Objective, Probe
from shoal.client.load.pipeline_tally import PipelineTally
from shoal.client.load.tally import LoadResult
from shoal.errors import ConfigurationError


@pytest.mark.parametrize(
    ("requests", "late"), [(100, -1), (458, -1), (459, 0), (661, 0), (662, 1), (837, 1), (838, 2), (1_001, 3)]
)
def test_how_many_may_be_late_is_as_in_mlperf(requests: int, late: int) -> None:
    """MLPerf's own table for a percentile of 99 % and a confidence of 99 %: 459 with none late, 662 with one, …"""
    assert Objective(1.0, 0.99).most_late(requests) == late


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
def test_the_bound_is_that_of_exact_arithmetic(quantile: float) -> None:
    share = 1 - Fraction(quantile)
    for requests in (20, 120, 500):
        late = Objective(1.0, quantile).most_late(requests)
        terms = [
            math.comb(requests, number) * share**number * (1 - share) ** (requests - number)
            for number in range(late + 2)
        ]
        assert sum(terms[: late + 1]) <= Fraction(1, 100) < sum(terms)


@pytest.mark.parametrize(("quantile", "requests"), [(0.9, 97), (0.99, 1_001), (0.999, 10_042)])
def test_how_many_requests_a_probe_needs(quantile: float, requests: int) -> None:
    objective = Objective(1.0, quantile)
    assert objective.fewest_requests == requests
    assert objective.most_late(requests) == 3 > objective.most_late(requests - 1)


def result(latencies: list[float], failed: int = 0) -> LoadResult:
    errors = ErrorTally(Counter({"RESOURCE_EXHAUSTED": failed} if failed else {}))
    return LoadResult(duration_seconds=10.0, latencies=array("d", latencies), failed=errors)


def test_late_and_failed_requests_count_alike() -> None:
    objective = Objective(0.1, 0.99)
    kept = Probe.of(100, result([0.05] * 998 + [0.2], failed=2), objective)
    assert (kept.requests, kept.late, kept.failed, kept.latency, kept.kept) == (1_001, 3, 2, 0.05, True)
    assert not Probe.of(100, result([0.05] * 997 + [0.2] * 2, failed=2), objective).kept


def test_an_answer_that_lacks_a_part_is_a_failed_one_however_soon_it_came() -> None:
    lacking = result([0.05] * 9 + [0.01])
    lacking.pipeline = PipelineTally(is_whole=array("b", [1] * 9 + [0]))
    probe = Probe.of(100, lacking, Objective(0.1, 0.5))
    assert (probe.requests, probe.late, probe.failed, probe.latency) == (10, 1, 1, 0.05)
    late = result([0.05] * 9 + [0.2])
    late.pipeline = lacking.pipeline
    assert Probe.of(100, late, Objective(0.1, 0.5)).late == 1  # not for both


def test_where_too_many_fail_there_is_no_quantile() -> None:
    probe = Probe.of(100, result([0.05] * 900, failed=100), Objective(0.1, 0.99))
    assert probe.latency is None
    assert not probe.kept
    assert not Probe.of(100, result([]), Objective(0.1)).kept


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"seconds": math.nan}, {"seconds": 1, "quantile": 99}])
def test_an_objective_that_is_none(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="expected"):
        Objective(**wrong)
