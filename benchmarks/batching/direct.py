"""What a CPU-second of batcher carries: called directly, with a worker that answers at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from itertools import count, islice
from typing import TYPE_CHECKING, Any

import grpc

from benchmarks.batching.replicas import Model
from benchmarks.batching.stack import Layout, running
from shoal.batching.v1 import stream_pb2
from shoal.batching.wire import STREAM
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
STREAMS = 2
"""That the callers of the closed loop share, where calls go by stream."""


async def measure(options: Options) -> dict[str, Any]:
    """One row a door, way and batch size."""
    seconds = options.window(SECONDS)
    rows = []
    for front, name in FRONTS.items():
        models = {f"echo-{size}": Model(_settings(size), echo=True) for size in SIZES}
        async with running(Layout(models, batcher_front=name)) as service:
            for size in SIZES:
                for way, calling in WAYS.items():
                    options.say(f"batches of {size} through {front}, {way}, {seconds:g} s")
                    measured = await _window(service, calling, size, seconds, options.warm_up)
                    rows.append({"front": front, "way": way, "size": size, **measured})
    settings = {
        "seconds": seconds,
        "deadline_s": None,
        "max_queue_delay_ms": 1000 * QUEUE_DELAY_SECONDS,
        "callers": {str(size): BATCHES_IN_FLIGHT * size for size in SIZES},
        "streams": STREAMS,
        "message_bytes": len(_message("echo-8")),
    }
    return {"settings": settings, "rows": rows}


def _settings(size: int) -> BatchingSettings:
    return BatchingSettings(max_batch_size=size, max_queue_delay_microseconds=int(QUEUE_DELAY_SECONDS * 1e6))


async def _window(service: Running, calling: Calling, size: int, seconds: float, warm_up: float) -> dict[str, Any]:
    (batcher,) = (part.listen for part in service.plan.parts if part.component == Component.BATCHER)
    counter = _Counter()
    async with grpc.aio.insecure_channel(str(batcher)) as channel:
        callers = [asyncio.create_task(each) for each in calling(counter, channel, f"echo-{size}", size)]
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


def _unary(counter: _Counter, channel: grpc.aio.Channel, model: str, size: int) -> list[Coroutine[Any, Any, None]]:
    """Callers with one call in flight each."""
    call: Any = channel.unary_unary(METHOD)  # grpc's stubs know no generic callable
    message, metadata = _message(model), _metadata(model)

    async def one() -> None:
        while not counter.enough:
            await call(message, timeout=30, metadata=metadata)
            counter.calls += 1

    return [one() for _ in range(BATCHES_IN_FLIGHT * size)]


def _by_stream(counter: _Counter, channel: grpc.aio.Channel, model: str, size: int) -> list[Coroutine[Any, Any, None]]:
    """Streams that hold as many calls in flight together: a result makes room for the next call."""
    open_stream: Any = channel.stream_stream(
        METHOD + STREAM,
        request_serializer=stream_pb2.CallChunk.SerializeToString,
        response_deserializer=stream_pb2.CallResultChunk.FromString,
    )
    message, metadata = _message(model), _metadata(model)

    async def one() -> None:
        stream, indices, left = open_stream(metadata=metadata), count(), 0

        def calls(number: int) -> stream_pb2.CallChunk:
            items = (
                stream_pb2.CallItem(index=index, request=message, timeout_us=30_000_000)
                for index in islice(indices, number)
            )
            return stream_pb2.CallChunk(calls=items)

        left = BATCHES_IN_FLIGHT * size // STREAMS
        await stream.write(calls(left))
        while left:
            answered = len((await stream.read()).results)
            counter.calls += answered
            if counter.enough:
                left -= answered
            else:
                await stream.write(calls(answered))
        await stream.done_writing()

    return [one() for _ in range(STREAMS)]


Calling = Callable[[_Counter, grpc.aio.Channel, str, int], "list[Coroutine[Any, Any, None]]"]
WAYS: dict[str, Calling] = {"unary": _unary, "stream": _by_stream}


def _metadata(model: str) -> tuple[tuple[str, str], ...]:
    return (("x-model-name", model), ("x-client-id", "bench"))


def _message(model: str) -> bytes:
    request = inference_pb2.ImageRequest(
        api_key="k" * 43, image_uuid="00000000-0000-4000-8000-000000000000", model_name=model
    )
    return request.SerializeToString()
