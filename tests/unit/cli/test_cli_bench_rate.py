from __future__ import annotations

import json
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from shoal.cli.bench_rate import tell_rate
from shoal.cli.bench_ways import Fleet
from shoal.client import Priority
from shoal.client.connection import Connection
from shoal.client.load.error_tally import ErrorTally
from shoal.client.load.fleet import LoadJob
from shoal.client.load.generator import LoadSettings
from shoal.client.load.objective import Objective
from shoal.client.load.tally import LoadResult
from shoal.errors import ConfigurationError, NotFound, Overloaded

SETTINGS = LoadSettings(duration_seconds=10.0, seed=1)
FLEET = Fleet(1, streams=True, upload=False)


@dataclass
class Service:
    """Answers in ``single`` seconds up to ``capacity`` requests a second, and late beyond; ``tired`` calls after it."""

    capacity: float = 330.0
    single: float = 0.01
    tired: int = 0
    """How many single requests after a load too high find its queue."""
    interrupt_at: float = float("inf")
    loads: list[LoadSettings] = field(default_factory=list)
    _queued: int = 0

    def measure(self, job: LoadJob, processes: int) -> LoadResult:
        settings = job.settings
        self.loads.append(settings)
        number = 5 if settings.rate is None else round(settings.rate * settings.duration_seconds)
        late = (settings.rate or 0) > self.capacity or (settings.rate is None and self._queued > 0)
        self._queued = self.tired if settings.rate and late else self._queued - 1
        latency = 9.0 if late else self.single
        return LoadResult(
            duration_seconds=settings.duration_seconds,
            latencies=array("d", [latency] * number),
            interrupted=(settings.rate or 0) >= self.interrupt_at,
        )

    def find(self, *, as_json: bool = True, objective: Objective | None = None) -> int:
        job = LoadJob(Connection("here:1", "key"), (), SETTINGS, Priority.INTERACTIVE)
        return tell_rate(job, FLEET, objective or Objective(0.05), self.measure, {"model": "cats"}, as_json=as_json)


def test_the_rate_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    service = Service()
    assert service.find() == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert 330 / 1.05 < found["rate_per_s"] <= 330
    assert found["confirmed"]
    assert (found["latency_slo_ms"], found["quantile"], found["single_ms"]) == (50, 0.99, 10)
    assert found["settings"] == {"model": "cats"}
    assert found["probes"][0] == {
        "rate": 50, "seconds": 1_001 / 50, "requests": 1_001, "late": 0, "failed": 0, "kept": True, "limit": None,
        "latency_ms": 10,
    }  # fmt: skip


def test_the_rate_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert Service().find(as_json=False) == 0
    captured = capsys.readouterr()
    told = captured.out
    assert "shoal: 400.0 requests/s for 10 s: 4,000 of 4,000 requests late: missed" in captured.err
    assert "highest rate that keeps a p99 of 50 ms: 3" in told
    assert "(confirmed by a longer run)" in told
    assert "one request alone: 10.0 ms" in told
    assert "missed" in told


def test_a_probe_waits_until_the_queues_are_empty() -> None:
    service = Service(tired=7)
    assert service.find() == 0
    after = [index for index, load in enumerate(service.loads) if load.rate == 400]
    first, second = after[:2]
    between = service.loads[first + 1 : second]
    assert len(between) == 8  # seven find the queue, the eighth doesn't
    assert all(load.rate is None and load.concurrency == 1 for load in between)


def test_a_service_that_never_comes_to_rest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Overloaded, match=r"one request takes 9000\.0 ms, and took 10\.0 ms at first"):
        Service(tired=1_000).find()
    assert json.loads(capsys.readouterr().out)["rate_per_s"] == 200  # what is known is told


def test_an_interrupt_tells_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert Service(interrupt_at=150).find(as_json=False) == 0
    captured = capsys.readouterr()
    assert "interrupted" in captured.err
    assert "100.0 requests/s (not confirmed by a longer run yet)" in captured.out
    assert Service(interrupt_at=1).find() == 1
    assert json.loads(capsys.readouterr().out)["rate_per_s"] is None


def test_an_objective_below_one_request_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"takes longer; one request alone takes 60\.0 ms"):
        Service(single=0.06).find()
    assert not capsys.readouterr().out


def test_where_nothing_is_answered_the_reason_is_told() -> None:
    def measure(job: LoadJob, processes: int) -> LoadResult:
        return LoadResult(failed=ErrorTally(Counter(NOT_FOUND=3), {"NOT_FOUND": "no model cats"}))

    job = LoadJob(Connection("here:1", "key"), (), SETTINGS)
    with pytest.raises(NotFound, match="no request was answered: NOT_FOUND: no model cats"):
        tell_rate(job, FLEET, Objective(0.05), measure, {}, as_json=True)
