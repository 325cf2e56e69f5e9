from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from shoal.client.load.generator import LoadRequest
from shoal.client.load.replies import Reply
from shoal.client.results import Timing
from shoal.errors import Code, ConfigurationError
from shoal.modelconfig.batching import BatchingSettings
from shoal.modelconfig.model import Task
from shoal.simulate.fit import Stages, fit
from shoal.simulate.service import simulate
from shoal.validation.beside import Served, compare, scenario
from shoal.validation.measure import Trial, calibrate, concurrencies, figures, stages

SETTINGS = BatchingSettings(max_batch_size=16)
TRIAL = Trial(workers=2, warm_up=1.0, timeout=1.0, calibration=0.02)


def timing(size: int) -> Timing:
    return Timing(1000, 2000, 3000, 4000, 0, 12_000, size)


def good(intended: float, latency: float, size: int) -> Reply:
    return Reply("m", intended, 0.0, intended + latency, Code.OK, timing(size))


class Client:
    async def infer(self, task: Task, image: Any, model: str, *, timeout_seconds: float | None = None) -> Any:
        return SimpleNamespace(timing=timing(1))


def test_loops_go_from_one_caller_to_more_than_all_workers_take() -> None:
    assert concurrencies(SETTINGS, 2) == [1, 4, 8, 12, 16, 24, 32, 48, 64, 96]
    assert concurrencies(BatchingSettings(), 1) == [1, 2, 3]


def test_stages_are_seconds_and_the_way_is_what_they_leave() -> None:
    found = stages(good(1.0, 0.012, 4), alone=True)
    assert found.batch_size == 4
    assert found.way == pytest.approx(0.002)


def test_figures_count_answers_of_the_window_and_latencies_of_requests_meant_for_it() -> None:
    refused = Reply("m", 1.5, 0.0, 1.5, Code.RESOURCE_EXHAUSTED)
    found = figures([good(0.9, 0.5, 4), good(1.2, 0.1, 4), good(1.9, 0.3, 1), refused], 1.0, 2.0)
    cached = figures([good(1.2, 0.1, 4), good(1.9, 0.3, 0)], 1.0, 2.0)
    assert (cached.throughput, cached.mean_batch_size) == (1.0, 4.0)
    assert found.throughput == 2.0  # the first and the second
    assert found.p50 == pytest.approx(0.1)
    assert found.p99 == pytest.approx(0.3)
    assert found.mean_batch_size == pytest.approx(2 / 1.25)
    assert found.refused_share == pytest.approx(1 / 3)


async def test_a_calibration_finds_what_answers_say() -> None:
    found = await calibrate(Client(), [LoadRequest(Task.CLASSIFICATION, "p", "m")], SETTINGS, TRIAL)  # type: ignore[arg-type]
    assert found.costs.times == pytest.approx((0.004,))
    assert found.prepare.bounds[0] == pytest.approx(0.005)


def test_the_simulator_is_told_all_arrivals_and_the_costs_that_were_found() -> None:
    fits = {"m": fit([Stages(0.030, 0.0, 0.004, 0.002, 0.020, 1)] * 3)}
    told = scenario({"m": Served(SETTINGS, [], [0.5, 1.5, 2.5])}, fits, TRIAL, 3.0)
    outcome = simulate(told).models["m"]
    assert outcome.offered == outcome.answered == 2
    assert outcome.latencies[0] == pytest.approx(0.030)  # alone: the way, the preparation and the batch


async def test_a_trace_within_the_warm_up_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"ends at 0\.5 s: expected more than the warm-up, 1 s"):
        await compare(Client(), {"m": Served(SETTINGS, [], [0.5])}, TRIAL, lambda _: None)  # type: ignore[arg-type]
