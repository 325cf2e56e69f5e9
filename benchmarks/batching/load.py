"""Load through the SDK, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from shoal.client.load.generator import LoadRequest, LoadSettings, run_load
from shoal.errors import Internal
from shoal.modelconfig.model import Task
from shoal.runtime.percentile import milliseconds, percentile

if TYPE_CHECKING:
    from benchmarks.batching.stack import Running
    from shoal.client.load.tally import LoadResult

SEED = 1
"""Of the arrivals: the same in every run."""


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Poisson arrivals."""

    rate: float
    """A second."""
    seconds: float
    warm_up_seconds: float
    deadline_seconds: float
    model: str = "scripted"


async def offer(service: Running, load: OpenLoop, *, streams: bool | None = None) -> LoadResult:
    """Sends references that nobody fetches. ``streams``: see ``AsyncClient``."""
    settings = LoadSettings(
        rate=load.rate,
        duration_seconds=load.seconds,
        warm_up_seconds=load.warm_up_seconds,
        timeout_seconds=load.deadline_seconds,
        seed=SEED,
    )
    async with service.client(streams=streams) as client:
        await client.connect()
        await client.classify(str(uuid4()), load.model)  # the first call of a queue finds its worker
        result = await run_load(client, [LoadRequest(Task.CLASSIFICATION, str(uuid4()), load.model)], settings)
    if not result.latencies:
        raise Internal(f"nothing was answered: {dict(result.failed.codes)}")
    return result


def figures(result: LoadResult) -> dict[str, Any]:
    """What is kept of one run. Latency is that of good answers, which by definition came within the deadline."""
    ordered = sorted(result.latencies)
    sent = len(ordered) + sum(result.failed.codes.values())
    return {
        "offered_per_s": round(sent / result.duration_seconds, 1),
        "goodput_per_s": round(result.images_per_s, 1),
        "mean_batch_size": round(result.mean_batch_size, 2),
        "p50_ms": milliseconds(percentile(ordered, 0.5)),
        "p99_ms": milliseconds(percentile(ordered, 0.99)),
        "refused_share": round(result.failed.codes["RESOURCE_EXHAUSTED"] / sent, 4),
        "errors": dict(result.failed.codes),
        "answers": len(ordered),
        "send_lag_max_ms": milliseconds(result.lag_max_seconds),
        "client_cores": round(result.cpu_seconds / result.duration_seconds, 3),
    }
