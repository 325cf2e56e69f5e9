from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest

from shoal.errors import ConfigurationError
from shoal.modelconfig.batching import BatchingSettings
from shoal.simulate import parts, sample
from shoal.simulate.curve import CostCurve
from shoal.simulate.judge import Figures, errors
from shoal.simulate.parts import part, share_for
from shoal.simulate.scenario import Autoscaling, Fault, Load, Scenario, SimulatedModel, SimulatedPool
from shoal.simulate.service import simulate
from shoal.simulate.spreads import Constant
from shoal.simulate.times import Steady

CURVE = CostCurve(0.008, 0.001)
"""8 in 16 ms: 500 a second."""


def scenario(
    replicas: int = 16, load: float = 0.8, seconds: float = 3.0, delay_ms: int = 20, **changes: object
) -> Scenario:
    settings = BatchingSettings(max_batch_size=8, max_queue_delay_microseconds=1000 * delay_ms)
    told = Scenario(
        [SimulatedModel("a", settings, CURVE, Constant(0.002))],
        [SimulatedPool("p", ("a",), replicas)],
        [Load("a", Steady(load * 500 * replicas, 1.0, "1"), timeout=math.inf)],
        seconds,
        warm_up=1.0,
    )
    return replace(told, **changes)  # type: ignore[arg-type]


def test_a_sample_is_near_the_whole_and_nearer_than_its_parts() -> None:
    """The whole is small enough here to be simulated, too."""
    told = sample.sample(scenario(), Fraction(1, 4)).models["a"]
    whole = Figures.calculated(simulate(scenario()).models["a"])
    found, raw = errors(whole, told.figures), errors(whole, told.sizes[0])
    for figure in ("throughput", "mean_batch_size", "p50", "p95", "p99"):
        assert abs(found[figure] or 0) < 0.02
    for figure in ("p50", "p95", "p99"):
        assert abs(found[figure] or 0) < 0.2 * abs(raw[figure] or 0)
        assert 0 < (told.half[figure] or 0) < 0.06 * getattr(whole, figure)


def test_where_size_changes_what_happens_the_interval_is_wide_enough() -> None:
    """Batches of all 16 are full, those of 4 are not."""
    told = sample.sample(scenario(delay_ms=4), Fraction(1, 4)).models["a"]
    whole = Figures.calculated(simulate(scenario(delay_ms=4)).models["a"])
    assert told.sizes[0].mean_batch_size < 0.9 * whole.mean_batch_size
    for figure in ("throughput", "mean_batch_size", "p50", "p95", "p99"):
        value = getattr(whole, figure)
        assert getattr(told.figures, figure) == pytest.approx(value, abs=(told.half[figure] or 0) + 0.02 * value)


def test_counts_are_those_of_the_whole_and_the_same_each_time() -> None:
    once, again = (sample.sample(scenario(seconds=2.0), Fraction(1, 8), 2) for _ in range(2))
    assert once == again
    outcome = once.outcome.models["a"]
    assert outcome.offered == pytest.approx(6400, rel=0.05)
    assert outcome.owners == {"anyone": (outcome.offered, outcome.answered)}
    assert once.outcome.replica_seconds["p"] == pytest.approx(16.0)


def test_where_no_parts_are_half_as_large_the_figures_are_those_of_the_parts() -> None:
    told = sample.sample(scenario(replicas=3, seconds=2.0), Fraction(1, 3), 2).models["a"]
    assert told.sizes == [told.figures]


def test_independent_replicas_have_exact_parts() -> None:
    """Behind a balancer that chooses by chance each replica is alone: parts differ from the whole by chance only."""
    told = sample.sample(scenario(replicas=8, seconds=6.0, balancing="random"), Fraction(1, 4)).models["a"]
    whole = Figures.calculated(simulate(scenario(replicas=8, seconds=6.0, balancing="random")).models["a"])
    assert told.sizes[0].mean_batch_size == pytest.approx(whole.mean_batch_size, rel=0.02)
    assert told.sizes[0].p99 == pytest.approx(whole.p99, rel=0.1)


def test_what_parts_hold_is_their_share() -> None:
    scaling = Autoscaling("p", 4, 32)
    told = part(scenario(autoscaling=[scaling]), Fraction(1, 4), 3)
    assert told.pools[0].replicas == 4
    assert (told.autoscaling[0].smallest, told.autoscaling[0].largest) == (1, 8)
    assert told.models[0].settings.max_queue_size == 2500
    apart = part(scenario(balancing="round_robin"), Fraction(1, 4), 3)
    assert apart.models[0].settings.max_queue_size == 0


def test_the_share_follows_the_number_of_requests_and_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    large = scenario(replicas=1000, seconds=60.0)  # 24 million requests
    assert parts.is_large(large, 4)
    assert not parts.is_large(scenario(), 4)
    assert share_for(large, 4) == Fraction(28, 1000)  # 0.75 million each
    monkeypatch.setattr(parts, "SAMPLED_REQUESTS", 10)
    assert share_for(large, 4) == Fraction(8, 1000)


@pytest.mark.parametrize(
    ("changes", "share", "said"),
    [
        (
            {"pools": [SimulatedPool("p", ("a",), 7), SimulatedPool("q", ("a",), 20)]},
            Fraction(1, 2),
            "pools of 7 and 20",
        ),
        ({}, Fraction(1, 3), "parts of 1/16, 2/16 and so on"),
        ({"faults": [Fault("replica", 1.0, 2.0, "p-0")]}, Fraction(1, 2), "strikes more of a part"),
        ({}, Fraction(1, 2), "4 parts of 1/2"),
    ],
)
def test_what_has_no_such_parts_is_refused(changes: dict[str, object], share: Fraction, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        sample.sample(scenario(**changes), share)


def test_a_scenario_whose_faults_strike_single_replicas_is_not_sampled_by_itself() -> None:
    fault = Fault("replica", 1.0, 2.0, "p-0")
    assert not parts.is_large(scenario(replicas=1000, seconds=60.0, faults=[fault]), 4)
    assert parts.is_large(scenario(replicas=1000, seconds=60.0, faults=[Fault("slow_store", 1.0, 2.0, factor=2.0)]), 4)


@pytest.mark.parametrize(("freedom", "value"), [(1, 12.706), (3, 3.182), (9, 2.262), (63, 1.998)])
def test_students_t(freedom: int, value: float) -> None:
    """Values: any table, such as Law's, T.1."""
    assert sample.student(freedom) == pytest.approx(value, abs=0.01)
