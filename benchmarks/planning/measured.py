"""What a real service did with calls whose arrivals are known, and the costs of its stages by other calls."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING
from uuid import uuid4

from shoal.client.load.generator import LoadRequest
from shoal.client.load.replies import replies_of, replies_to
from shoal.errors import Code
from shoal.modelconfig.model import Task
from shoal.simulate.fit import Fit, Stages, fit
from shoal.simulate.judge import Figures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.client import AsyncClient
    from shoal.client.load.replies import Reply

CONCURRENCIES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48)
"""For each worker; the lone calls come first."""
LONE = 2
"""At most so many callers are alone."""


def request(model: str) -> LoadRequest:
    """For a picture that nobody fetches."""
    return LoadRequest(Task.CLASSIFICATION, str(uuid4()), model)


async def calibrate(client: AsyncClient, model: str, workers: int, seconds: float, timeout: float) -> Fit:
    """The costs of a model by closed loops, each so long."""
    found: list[Stages] = []
    for callers in sorted({1, *(workers * each for each in CONCURRENCIES)}):
        replies = await replies_of(client, [request(model)], callers, seconds, timeout)
        found += [stages(reply, alone=callers <= LONE) for reply in replies if reply.timing is not None]
    return fit(found)


def stages(reply: Reply, *, alone: bool) -> Stages:
    """Of a good answer."""
    timing = reply.timing
    assert timing is not None
    micros = (timing.queue_us, timing.fetch_us, timing.decode_us, timing.compute_us)
    queue, fetch, decode, compute = (each / 1e6 for each in micros)
    return Stages(reply.latency, queue, fetch, decode, compute, timing.batch_size, alone)


async def play(client: AsyncClient, arrivals: Mapping[str, Sequence[float]], timeout: float) -> list[Reply]:
    """Sends each model's requests at their times."""
    requests = {model: request(model) for model in arrivals}
    calls = sorted((time, model) for model, times in arrivals.items() for time in times)
    return await replies_to(client, ((time, requests[model]) for time, model in calls), timeout)


def figures(replies: Sequence[Reply], since: float, until: float) -> Figures:
    """Of one model. Latencies are those of requests meant for the window; throughput counts answers given in it."""
    meant = [reply for reply in replies if since <= reply.intended < until]
    good = [reply for reply in meant if reply.code == Code.OK]
    sizes = [reply.timing.batch_size for reply in good if reply.timing is not None]
    given = sum(reply.code == Code.OK and since <= reply.finished < until for reply in replies)
    batches = sum(1 / size for size in sizes)
    return Figures.of(
        sorted(reply.latency for reply in good),
        len(meant),
        given / (until - since),
        len(sizes) / batches if batches else 0.0,
    )


def by_model(replies: Sequence[Reply]) -> dict[str, list[Reply]]:
    """In the order of their answers."""
    ordered = sorted(replies, key=lambda reply: reply.model)
    return {model: list(of) for model, of in groupby(ordered, key=lambda reply: reply.model)}
