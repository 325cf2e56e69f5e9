from __future__ import annotations

import math
import random
from array import array
from typing import TYPE_CHECKING

import pytest

from shoal.arrivals.processes import poisson, until
from shoal.client.load.find_rate import RateSearch
from shoal.client.load.objective import Objective, Probe
from shoal.client.load.tally import LoadResult
from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

SERVICE = 0.01
OBJECTIVE = Objective(0.06, 0.99)


class Answerer:
    """One server, each request ``SERVICE`` seconds: requests of a Poisson process wait for those before (Lindley)."""

    def __init__(self, seed: int, objective: Objective = OBJECTIVE) -> None:
        self._source = random.Random(seed)
        self._objective = objective
        self.windows: list[tuple[float, float]] = []

    def probe(self, rate: float, seconds: float) -> Probe:
        self.windows.append((rate, seconds))
        free, latencies = 0.0, array("d")
        for arrival in until(poisson(rate, self._source), seconds):
            free = max(free, arrival) + SERVICE
            latencies.append(free - arrival)
        return Probe.of(rate, LoadResult(duration_seconds=seconds, latencies=latencies), self._objective)


def share_in_time(rate: float) -> float:
    """M/D/1 (Erlang 1909): P(wait <= t) = (1 - load) * sum over k <= t / D of (-x)^k / k! * e^x, x = rate (t - k D)."""
    wait = OBJECTIVE.seconds - SERVICE
    exponents = [rate * (wait - number * SERVICE) for number in range(round(wait / SERVICE) + 1)]
    terms = [(-each) ** number / math.factorial(number) * math.exp(each) for number, each in enumerate(exponents)]
    return (1 - rate * SERVICE) * sum(terms)


def highest_rate() -> float:
    low, high = 1.0, 1 / SERVICE
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if share_in_time(middle) >= OBJECTIVE.quantile else (low, middle)
    return low


@pytest.mark.parametrize("seed", range(5))
def test_the_rate_is_that_of_the_formula(seed: int) -> None:
    """Never above it, and below by the doubt of a run of 60 seconds and the search's step."""
    search = RateSearch(Answerer(seed).probe, OBJECTIVE, window_seconds=60)
    found = search.run(SERVICE)
    assert search.confirmed
    assert found.kept
    assert 0.85 * highest_rate() < found.rate < 1.02 * highest_rate()


def test_longer_runs_come_closer_to_it() -> None:
    found = RateSearch(Answerer(1).probe, OBJECTIVE, window_seconds=1_000).run(SERVICE)
    assert 0.93 * highest_rate() < found.rate < 1.01 * highest_rate()


def kept_up_to(limit: float, *, flaky: Callable[[int], bool] = lambda _number: False) -> Callable[..., Probe]:
    """What keeps the objective up to a rate, but for the calls for which ``flaky`` says otherwise."""
    calls = iter(range(10_000))

    def probe(rate: float, seconds: float) -> Probe:
        return Probe(rate, seconds, 1_000, 0, 0, 0.01, kept=(rate <= limit) != flaky(next(calls)))

    return probe


def rates(search: RateSearch) -> list[float]:
    return [probe.rate for probe in search.probes]


def test_doubling_then_bisection_to_5_percent() -> None:
    search = RateSearch(kept_up_to(330), OBJECTIVE, 10)
    best = search.run(0.01)
    assert rates(search)[:5] == [50, 100, 200, 400, 400]  # a probe that fails is repeated once
    assert best.rate <= 330 < search.failed_rate <= best.rate * 1.05
    assert best.seconds == pytest.approx(3 * search.seconds(best.rate))  # the last one confirms
    assert search.probes[-1] is best


def test_one_bad_probe_changes_nothing() -> None:
    whole, flaky = (
        RateSearch(kept_up_to(330), OBJECTIVE, 10),
        RateSearch(kept_up_to(330, flaky={1}.__contains__), OBJECTIVE, 10),
    )
    assert whole.run(0.01).rate == flaky.run(0.01).rate
    assert len(flaky.probes) == len(whole.probes) + 1


def test_a_best_that_is_not_confirmed_gives_way_to_a_lower_one() -> None:
    def probe(rate: float, seconds: float) -> Probe:
        return Probe(rate, seconds, 1_000, 0, 0, 0.01, kept=rate <= (330 if seconds < 30 else 280))

    search = RateSearch(probe, OBJECTIVE, 10)
    best = search.run(0.01)
    assert 280 / 1.05 < best.rate <= 280
    assert search.confirmed
    assert search.failed_rate <= best.rate * 1.051


def test_where_only_short_runs_keep_it_nothing_is_named() -> None:
    def probe(rate: float, seconds: float) -> Probe:
        return Probe(rate, seconds, 1_000, 0, 0, 0.01, kept=rate <= 330 and seconds < 25)

    search = RateSearch(probe, OBJECTIVE, 10)
    with pytest.raises(ConfigurationError, match="short runs keep it"):
        search.run(0.01)
    assert search.best is None


def test_a_service_that_is_slower_than_one_caller_suggests_starts_lower() -> None:
    search = RateSearch(kept_up_to(30), OBJECTIVE, 10)
    assert 30 / 1.05 < search.run(0.01).rate <= 30
    assert rates(search)[:3] == [50, 50, 25]


def test_what_no_rate_keeps_is_refused_with_what_a_request_takes() -> None:
    search = RateSearch(kept_up_to(0), OBJECTIVE, 10)
    with pytest.raises(ConfigurationError, match=r"not even 12 requests/s keep it; one request alone takes 10\.0 ms"):
        search.run(0.01)
    assert rates(search) == [50, 50, 25, 25, 12.5, 12.5]


def test_an_objective_below_a_single_request_is_refused_before_any_load() -> None:
    search = RateSearch(kept_up_to(100), OBJECTIVE, 10)
    with pytest.raises(ConfigurationError, match=r"60 ms can't be kept: a single request .* takes 61\.0 ms"):
        search.run(0.061)
    assert not search.probes


@pytest.mark.parametrize(
    ("objective", "rate", "seconds"),
    [(Objective(0.05), 1_000, 10), (Objective(0.05), 50, 1_001 / 50), (Objective(0.5), 1_000, 20)],
    ids=["as asked", "for enough requests", "for a queue to show"],
)
def test_how_long_a_probe_is(objective: Objective, rate: float, seconds: float) -> None:
    assert RateSearch(kept_up_to(1), objective, 10).seconds(rate) == pytest.approx(seconds)


def test_an_interrupt_leaves_what_is_known() -> None:
    probe = kept_up_to(330)

    def interrupted(rate: float, seconds: float) -> Probe:
        if rate > 150:
            raise KeyboardInterrupt
        return probe(rate, seconds)

    search = RateSearch(interrupted, OBJECTIVE, 10)
    with pytest.raises(KeyboardInterrupt):
        search.run(0.01)
    assert search.best is not None
    assert search.best.rate == 100
    assert not search.confirmed
