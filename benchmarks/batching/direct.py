"""What a CPU-second of batcher carries: called directly, with a worker that answers at once."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import grpc

from benchmarks.batching.replicas import Model
from benchmarks.batching.stack import Layout, running
from shoal.local.plan import Component
from shoal.modelconfig.batching import BatchingSettings
from shoal.v1 import inference_pb2

if TYPE_CHECKING:
    from benchmarks.batching.options import Options
    from benchmarks.batching.stack import Running

FRONTS = {"envoy": "", "grpcio": "grpcio"}
SIZES = (8, 32)
SECONDS = 10.0
BATCHES_IN_FLIGHT = 12
"""Callers of the closed loop, in batches: two are at the worker, and the others fill meanwhile."""
QUEUE_DELAY_SECONDS = 0.05
METHOD = "/shoal.v1.Inference/Classify"


async def measure(options: Options) -> dict[str, Any]:
    """One row a door and batch size."""
    seconds = options.window(SECONDS)
    rows = []
    for front, name in FRONTS.items():
        models = {f"echo-{size}": Model(_settings(size), echo=True) for size in SIZES}
        async with running(Layout(models, batcher_front=name)) as service:
            for size in SIZES:
                options.say(f"batches of {size} through {front}, {seconds:g} s")
                rows.append({"front": front, "size": size, **await _window(service, size, seconds, options.warm_up)})
    settings = {
        "seconds": seconds,
        "deadline_s": None,
        "max_queue_delay_ms": 1000 * QUEUE_DELAY_SECONDS,
        "callers": {str(size): BATCHES_IN_FLIGHT * size for size in SIZES},
        "message_bytes": len(_message("echo-8")),
    }
    return {"settings": settings, "rows": rows}


def _settings(size: int) -> BatchingSettings:
    return BatchingSettings(max_batch_size=size, max_queue_delay_microseconds=int(QUEUE_DELAY_SECONDS * 1e6))


async def _window(service: Running, size: int, seconds: float, warm_up: float) -> dict[str, Any]:
    model = f"echo-{size}"
    (batcher,) = (part.listen for part in service.plan.parts if part.component == Component.BATCHER)
    counter = _Counter()
    async with grpc.aio.insecure_channel(str(batcher)) as channel:
        call: Any = channel.unary_unary(METHOD)
        callers = [asyncio.create_task(counter.call(call, model)) for _ in range(BATCHES_IN_FLIGHT * size)]
        await asyncio.sleep(warm_up)
        before = await _snapshot(service, counter)
        await asyncio.sleep(seconds)
        after = await _snapshot(service, counter)
        counter.enough = True
        await asyncio.gather(*callers)
    calls, cpu_seconds, taken, batches = (last - first for first, last in zip(before, after, strict=True))
    return {
        "calls_per_s": round(calls / taken),
        "calls_per_cpu_s": round(calls / cpu_seconds),
        "batcher_cores": round(cpu_seconds / taken, 3),
        "mean_batch_size": round(calls / batches, 1),
    }


async def _snapshot(service: Running, counter: _Counter) -> tuple[float, float, float, float]:
    """Calls, CPU seconds of the batcher, the time and batches."""
    batches = await service.metric(Component.BATCHER, "shoal_batcher_batch_size_count")
    return counter.calls, service.cpu_seconds(Component.BATCHER), time.monotonic(), batches


class _Counter:
    def __init__(self) -> None:
        self.calls = 0
        self.enough = False

    async def call(self, call: Any, model: str) -> None:  # grpc's stubs know no generic callable
        """One caller of the closed loop."""
        message = _message(model)
        metadata = (("x-model-name", model), ("x-client-id", "bench"))
        while not self.enough:
            await call(message, timeout=30, metadata=metadata)
            self.calls += 1


def _message(model: str) -> bytes:
    request = inference_pb2.ImageRequest(
        api_key="k" * 43, image_uuid="00000000-0000-4000-8000-000000000000", model_name=model
    )
    return request.SerializeToString()
