from __future__ import annotations

import pytest

from shoal.batching.service import BatchingService
from shoal.modelconfig.batching import BatchingSettings
from shoal.observe.metrics import WORKER
from support.scripted_batches import ScriptedHandler

SHARED = [(1, 1, 1, 2), (1, 2, 0.5, 2), (4, 2, 2, 3), (5, 2, 2.5, 4), (2, 4, 0.5, 2)]


def told(what: str, model: str) -> float | None:
    return WORKER.get_sample_value(f"shoal_worker_{what}", {"model": model})


@pytest.mark.parametrize(("instances", "processes", "told_instances", "permits"), SHARED)
async def test_each_process_grants_and_tells_its_part(
    instances: int, processes: int, told_instances: float, permits: int
) -> None:
    service = BatchingService(processes)
    handler = ScriptedHandler(BatchingSettings(max_batch_size=8, instance_count=instances))
    await service.put("shared", handler)
    assert told("instances", "shared") == told_instances
    assert told_instances * processes == instances, "a sum over the processes is right"
    assert told("permit_limit", "shared") == permits
    assert permits * processes >= instances + 1, "together they keep the engine busy, and fetch for the next batch"
    assert told("batch_limit", "shared") == 8
    await service.remove("shared")
    assert told("permit_limit", "shared") == 0
