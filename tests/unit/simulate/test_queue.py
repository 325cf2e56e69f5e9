from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.batching.objective import calculate, used, ways
from shoal.modelconfig.batching import BatchingSettings
from shoal.runtime.precedence import BULK_SHARE
from shoal.runtime.priority import Priority
from shoal.simulate.curve import CostCurve
from shoal.simulate.queue import Load, VirtualService

INTERACTIVE, BULK = Priority
CURVE = CostCurve(0.010, 0.001)


def test_a_lone_request_takes_its_way_there_and_back_its_preparation_and_a_batch_of_one() -> None:
    service = VirtualService(BatchingSettings(), CURVE, path_seconds=0.002, prepare_seconds=0.005)
    service.run(1.0, [Load(0.0001, in_flight=1)])
    assert service.latencies(INTERACTIVE)[0] == pytest.approx(0.002 + 0.005 + 0.011 + 0.002)
    assert service.busy["w00"] == pytest.approx(0.011 * len(service.batches))


def test_an_engine_turns_to_bulk_once_in_its_share() -> None:
    service = VirtualService(BatchingSettings(), CURVE)
    service.run(10.0, [Load(1.0, in_flight=20), Load(1.0, BULK, in_flight=20, owner="b")])
    turns = Counter(batch.priority for batch in service.batches if batch.ended < 10)
    # What is handed over while bulk's own batch executes passes nobody, nor does what follows it at once: beside
    # interactive batches bulk has one permit, and its next batch comes when the last one has ended.
    assert turns[BULK] / turns.total() == pytest.approx(1 / (BULK_SHARE + 2), abs=0.005)


def test_the_same_seed_gives_the_same_service() -> None:
    runs = []
    for _ in range(2):
        service = VirtualService(BatchingSettings(max_batch_size=4), CURVE, noise=0.5, seed=3)
        service.run(2.0, [Load(100.0)])
        runs.append(service.latencies(INTERACTIVE))
    assert runs[0] == runs[1]
    assert len(runs[0]) > 100


def test_a_calculated_row_says_what_a_picture_costs_and_who_worked() -> None:
    name, settings = next(iter(ways((0,)).items()))
    row = calculate(name, settings, CURVE.scaled(8, 400.0), 2, 0.2)
    assert row["way"] == "objective-100"
    assert 1.0 <= row["to_full"] < 1.3
    assert row["p99_ms"] <= 100
    assert used({"a": 1.0, "b": 0.5, "c": 0.001}) == 2
