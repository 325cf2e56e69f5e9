"""The moment in which a server dies: with the real simulator, and with outcomes that are written down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shoal.plan.loss import server_dies
from shoal.plan.placements import Placement
from shoal.plan.pool import PlannedPool
from shoal.plan.trial import Bench, Trial
from shoal.simulate.scenario import ModelOutcome, Moment, Outcome, Scenario

if TYPE_CHECKING:
    from conftest import Maker


def trial(model: Maker, gpus: int, balancing: str = "permits") -> Trial:
    placement = Placement("p", (PlannedPool("p", (model("a", 600.0),)),), balancing)
    return Trial(placement, {"p": gpus}, (), {})


def scripted(latencies: list[float], lost: list[int]) -> Bench:
    """Of each moment: how long all of its 60 requests took, and how many had no answer."""

    def run(_: Scenario) -> Outcome:
        moments = [Moment(60, [one] * (60 - gone)) for one, gone in zip(latencies, lost, strict=True)]
        return Outcome({"a": ModelOutcome(0, 0, 0, 0, 0, 0.0, 0.0, [], moments=moments)}, {}, {}, 0)

    return Bench(run=run)


@pytest.mark.parametrize(
    ("after", "lost", "recovery", "gone"),
    [
        ([0.05] * 28, [0] * 28, 0.0, 0),
        ([0.05] * 28, [0, 0, 0] + [1] * 25, None, 25),
        ([0.2, 0.2, 0.05] + [0.05] * 25, [0] * 28, 1.0, 0),
        ([0.05] * 28, [0, 0, 30] + [0] * 25, 1.5, 30),
        ([0.2] * 28, [0] * 28, None, 0),
    ],
)
def test_it_is_well_again_when_the_objective_is_kept_and_goes_on_to_be(
    load: Maker, after: list[float], lost: list[int], recovery: float | None, gone: int
) -> None:
    bench = scripted([0.04] * 6 + after, [0] * 6 + lost)  # moments of 300 / 600 s
    [told] = server_dies(bench, trial(load, 3)).models
    assert (told.p99_before_ms, told.worst_before_ms, told.worst_p99_ms) == (40.0, 40.0, 1000 * max(after))
    assert (told.recovery_seconds, told.lost_requests) == (recovery, gone)
    assert told.lost == pytest.approx(gone / (60 * 28))


def test_a_moment_no_worse_than_one_before_it_is_well_and_the_objective_speaks_of_all_together(load: Maker) -> None:
    bench = scripted([0.04] * 5 + [0.104] + [0.05, 0.103] + [0.05] * 26, [0] * 34)
    [told] = server_dies(bench, trial(load, 3)).models
    assert (told.worst_before_ms, told.worst_p99_ms, told.recovery_seconds) == (104.0, 103.0, 0.0)
    bench = scripted([0.04] * 6 + [0.05, 0.103] + [0.05] * 26, [0] * 34)
    assert server_dies(bench, trial(load, 3)).models[0].recovery_seconds == 1.0


def test_permits_lose_only_what_the_server_had_and_a_round_robin_loses_its_turns_until_it_is_noticed(
    load: Maker,
) -> None:
    shoals, robins = (
        server_dies(Bench(), trial(load, 6, balancing)).models[0] for balancing in ("permits", "round_robin")
    )
    # Nobody answers for 2 s what a sixth of 600 requests a second is sent to.
    assert robins.lost_requests == pytest.approx(200, abs=25)
    assert shoals.lost_requests <= 2 * 5 * 2  # two batches of five, had at its end, and two that came soon after
    assert shoals.recovery_seconds is not None
    assert robins.recovery_seconds is not None
    assert shoals.recovery_seconds < robins.recovery_seconds
