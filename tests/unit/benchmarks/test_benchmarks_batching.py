from __future__ import annotations

import asyncio
from typing import Any

import pytest

from benchmarks.batching.overload import aims
from benchmarks.batching.priority import ratios
from benchmarks.batching.replicas import Model, Orders
from benchmarks.batching.report import settings
from benchmarks.batching.scripted import ScriptedModel, SerialEngine
from benchmarks.batching.spread import kept
from benchmarks.batching.tables import kept_promise, spread
from shoal.batching.v1 import batching_pb2
from shoal.errors import Code
from shoal.modelconfig.batching import BatchingSettings
from shoal.runtime.priority import Priority
from shoal.simulate.curve import CostCurve
from shoal.v1 import inference_pb2


def test_a_curve_is_fitted_and_scaled() -> None:
    curve = CostCurve.fit({1: 0.003, 2: 0.004, 8: 0.010})
    assert (curve.base, curve.slope) == (pytest.approx(0.002), pytest.approx(0.001))
    slower = curve.scaled(8, 80.0)
    assert slower.capacity(8) == pytest.approx(80.0)
    assert slower.base / slower.slope == pytest.approx(2.0)


def test_orders_survive_the_command_line() -> None:
    orders = Orders(
        ["127.0.0.1:1"], {"m": Model(BatchingSettings(max_batch_size=4), CostCurve(0.5, 0.25))}, inside=True
    )
    read = Orders.parse(str(orders))
    assert (read.listen, read.inside, read.models["m"].curve) == (["127.0.0.1:1"], True, CostCurve(0.5, 0.25))
    assert read.models["m"].settings.max_batch_size == 4


async def test_batches_take_their_time_one_after_the_other() -> None:
    engine = SerialEngine(CostCurve(base=0.001))
    first, seconds = await engine.run(1)
    second, _ = await engine.run(1)
    assert seconds == 0.001
    assert second >= first + seconds


async def test_an_interactive_batch_goes_before_bulk_ones_that_came_first() -> None:
    engine = SerialEngine(CostCurve(base=0.001))
    priorities = (Priority.BULK, Priority.BULK, Priority.INTERACTIVE)
    began = [start for start, _ in await asyncio.gather(*(engine.run(1, priority) for priority in priorities))]
    assert began[0] < began[2] < began[1]


def test_the_aims_of_priority() -> None:
    rows = [
        {"window": "alone", "interactive_per_s": 120.0, "p50_ms": 50.0, "p99_ms": 80.0},
        {"window": "bulk_alone", "much_per_s": 400.0},
        {"window": "beside", "interactive_per_s": 120.0, "p50_ms": 75.0, "p99_ms": 120.0, "much_per_s": 266.0},
        {"window": "no_priority", "interactive_per_s": 120.0, "p50_ms": 300.0, "p99_ms": 400.0, "much_per_s": 280.0},
    ]
    assert ratios(rows) == {"p50_ratio": 1.5, "p99_ratio": 1.5, "p99_ratio_without": 5.0, "bulk_of_the_rest": 0.95}


def test_the_aims_of_the_objective() -> None:
    told: list[dict[str, Any]] = [
        {"way": way, "load": load, "p99_ms": p99, "to_full": cost}
        for way, load, p99, cost in (
            ("objective-100", 0.1, 98.0, 1.8),
            ("objective-100", 0.3, 96.0, 1.05),
            ("objective-100", 0.3, 95.0, 1.0),
            ("objective-100", 0.9, 130.0, 1.0),
            ("delay-0", 0.3, 150.0, 3.3),
        )
    ]
    assert kept_promise({"settings": {"objective_ms": 100}, "measured": told}) == (100, 98.0, 1.05)


async def test_a_scripted_batch_answers_what_has_time_left() -> None:
    batch = ScriptedModel(BatchingSettings(), SerialEngine(CostCurve()), echo=False).begin("")
    request = inference_pb2.ImageRequest(image_uuid="a", model_name="m").SerializeToString()
    batch.add(batching_pb2.BatchItem(index=0, request=request, timeout_us=10**9))
    batch.add(batching_pb2.BatchItem(index=1, request=request))
    (results,) = [group async for group in batch.finish()]
    codes = {result.index: result.code for result in results}
    assert codes == {0: Code.OK, 1: Code.DEADLINE_EXCEEDED}
    reply = inference_pb2.ClassifyReply.FromString(next(result.response for result in results if not result.code))
    assert (reply.image_uuid, reply.timing.batch_size) == ("a", 1)


def test_the_aims_of_overload() -> None:
    rows = [
        {"load": 0.9, "goodput_per_s": 360.0, "p99_ms": 100.0},
        {"load": 1.0, "goodput_per_s": 400.0, "p99_ms": 120.0},
        {"load": 2.0, "goodput_per_s": 390.0, "p99_ms": 150.0},
    ]
    assert aims(rows) == {"goodput_kept": 0.975, "p99_ratio": 1.5}


def test_what_is_kept_of_the_batch_size() -> None:
    rows: list[dict[str, Any]] = [
        {"batchers": way, "replicas": count, "mean_batch_size": size}
        | {"engine_ms_per_image": 1.0, "goodput_per_s": 10.0, "p99_ms": 5.0}
        for way, count, size in ((0, 1, 8.0), (0, 4, 2.0), (1, 1, 8.0), (1, 4, 6.0))
    ]
    assert kept(rows) == {"0": 0.25, "1": 0.75}
    sizes = spread({"rows": rows, "kept": kept(rows)})[0]
    assert sizes.rows[-1] == ("**kept**", "**25 %**", "**75 %**")


def test_settings_read_as_one_line() -> None:
    told = {"seconds": 30.0, "max_queue_size": None, "curve": {"base_ms": 1.5}}
    assert settings(told) == "Settings: seconds 30, max_queue_size none, curve base_ms 1.5."
