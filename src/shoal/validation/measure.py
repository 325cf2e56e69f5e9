"""What a running service does with calls whose arrivals are known, and the costs of its stages by other calls."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

from shoal.client.load.replies import replies_of, replies_to
from shoal.errors import Code
from shoal.simulate.fit import Fit, Stages, fit
from shoal.simulate.judge import Figures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.client import AsyncClient
    from shoal.client.load.generator import LoadRequest
    from shoal.client.load.replies import Reply
    from shoal.modelconfig.batching import BatchingSettings

_FULLNESS = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1, 3 / 2, 2, 3)
"""Callers for each batch that executes at once, as a share of the largest batch: from small batches to full ones."""
_LONE = 2
"""At most so many callers are alone."""


def concurrencies(settings: BatchingSettings, workers: int) -> list[int]:
    """Callers of the loops of a calibration."""
    places = settings.max_batch_size * settings.instance_count * workers
    return sorted({1, *(max(1, round(places * part)) for part in _FULLNESS)})


@dataclass(frozen=True, slots=True)
class Trial:
    """How it is done."""

    workers: int
    """That serve the models."""
    warm_up: float
    """Seconds of the trace that don't count."""
    timeout: float
    """Seconds, of each call."""
    calibration: float
    """Seconds of each closed loop."""
    devices: str = "shared"
    """See ``SimulatedPool``."""


async def calibrate(
    client: AsyncClient, requests: Sequence[LoadRequest], settings: BatchingSettings, trial: Trial
) -> Fit:
    """The costs of a model by closed loops of several concurrencies; ``requests`` are sent in turn.

    Its calls have ten times the trial's timeout: many callers wait for long, and refusals would tell nothing.

    Raises:
        ConfigurationError: there were too few good answers.
    """
    found: list[Stages] = []
    for number in concurrencies(settings, trial.workers):
        replies = await replies_of(client, requests, number, trial.calibration, 10 * trial.timeout)
        found += [stages(reply, alone=number <= _LONE) for reply in replies if _was_in_batch(reply)]
    return fit(found, settings.instance_count)


def stages(reply: Reply, *, alone: bool) -> Stages:
    """Of a good answer."""
    timing = reply.timing
    assert timing is not None
    micros = (timing.queue_us, timing.fetch_us, timing.decode_us, timing.compute_us)
    queue, fetch, decode, compute = (each / 1e6 for each in micros)
    return Stages(reply.latency, queue, fetch, decode, compute, timing.batch_size, alone)


async def play(
    client: AsyncClient,
    requests: Mapping[str, Sequence[LoadRequest]],
    arrivals: Mapping[str, Sequence[float]],
    timeout: float,
) -> list[Reply]:
    """Sends each model's requests at their times; of several they come in turn."""
    turns = {model: cycle(of) for model, of in requests.items()}
    calls = sorted((time, model) for model, times in arrivals.items() for time in times)
    return await replies_to(client, ((time, next(turns[model])) for time, model in calls), timeout)


def figures(replies: Sequence[Reply], since: float, until: float) -> Figures:
    """Of one model. Latencies are those of requests meant for the window; throughput counts answers given in it."""
    meant = [reply for reply in replies if since <= reply.intended < until]
    good = [reply for reply in meant if reply.code == Code.OK]
    sizes = [reply.timing.batch_size for reply in good if reply.timing is not None and _was_in_batch(reply)]
    given = sum(reply.code == Code.OK and since <= reply.finished < until for reply in replies)
    batches = sum(1 / size for size in sizes)
    return Figures.of(
        sorted(reply.latency for reply in good),
        len(meant),
        given / (until - since),
        len(sizes) / batches if batches else 0.0,
    )


def _was_in_batch(reply: Reply) -> bool:
    """Whether it was answered, and not from a result cache."""
    return reply.timing is not None and reply.timing.batch_size > 0


def by_model(replies: Sequence[Reply]) -> dict[str, list[Reply]]:
    """In the order of their answers."""
    found: dict[str, list[Reply]] = {}
    for reply in replies:
        found.setdefault(reply.model, []).append(reply)
    return found
