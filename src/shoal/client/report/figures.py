"""From a recorded load test to what is drawn. No clock, no I/O."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from shoal.client.load.processes import busy_generator
from shoal.client.load.record import STAGES, Record
from shoal.runtime.percentile import milliseconds, percentile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shoal.client.load.tally import LoadResult

REST = "rest"
"""The stage that nobody measures: the network, the router, and waiting for the event loop of the load generator."""

_MOST_BINS = 100
_ANSWERS_A_BIN = 30
"""On average: a percentile of fewer is chance."""
_WIDTHS = (1, 2, 5)
_NARROWEST_SECONDS = 0.1
_BUCKETS_A_DECADE = 20
_CURVE = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99999)
_MILLISECONDS = 1000


@dataclass(frozen=True, slots=True)
class Bin:
    """A stretch of the window."""

    begin: float
    """Seconds since the window's begin."""
    answers_per_s: float
    errors_per_s: dict[str, float]
    """gRPC status name to failures a second."""
    p50_ms: float | None
    p99_ms: float | None
    """Latency of what was answered in this stretch."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Latencies from ``low_ms`` on and below ``high_ms``."""

    low_ms: float
    high_ms: float
    count: int


@dataclass(frozen=True, slots=True)
class Stage:
    """Milliseconds of one stage, over the requests that a model answered."""

    name: str
    mean_ms: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Figures:
    """All that the page shows beside the summary."""

    bin_seconds: float
    bins: list[Bin]
    offered_per_s: float | None
    """The open loop's rate; a closed loop has none."""
    histogram: list[Bucket]
    curve: list[tuple[float, float]]
    """Quantile, in [0, 1), and its latency in milliseconds; no further than the number of requests carries."""
    batch_share: dict[int, float]
    """Batch size to the share of batches, in [0, 1]. A batch counts once, however many requests it carried."""
    stages: list[Stage]
    busy_generator: str | None
    """Why the load generator itself may have been what was measured."""

    @classmethod
    def of(cls, result: LoadResult, settings: Mapping[str, Any]) -> Self:
        """The figures of a recorded result; ``settings`` are those of the load."""
        record = result.record or Record()
        ordered = sorted(result.latencies)
        width = bin_seconds(result.duration_seconds, result.answered)
        return cls(
            bin_seconds=width,
            bins=_bins(record, result.latencies, result.duration_seconds, width),
            offered_per_s=settings.get("rate"),
            histogram=histogram(ordered),
            curve=curve(ordered),
            batch_share=batch_share(record.batch_sizes),
            stages=_stages(record, result.latencies),
            busy_generator=busy_generator(result, settings["processes"], settings["rate"]),
        )

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def bin_seconds(duration: float, answered: int) -> float:
    """1, 2 or 5 times a power of ten: the narrowest with a hundred bins at most, and with enough answers in each."""
    width, steps = _NARROWEST_SECONDS, 0
    most = min(_MOST_BINS, max(1, answered / _ANSWERS_A_BIN))
    while duration / width > most:
        steps += 1
        width = _NARROWEST_SECONDS * _WIDTHS[steps % len(_WIDTHS)] * 10 ** (steps // len(_WIDTHS))
    return width


def histogram(ordered: Sequence[float]) -> list[Bucket]:
    """Sorted latencies, in seconds, in buckets of equal ratio: 20 to a factor of ten."""
    if not ordered:
        return []
    counts = Counter(math.floor(math.log10(max(one, 1e-6)) * _BUCKETS_A_DECADE) for one in ordered)
    edge = [10 ** (number / _BUCKETS_A_DECADE) * _MILLISECONDS for number in range(min(counts), max(counts) + 2)]
    return [
        Bucket(round(edge[place], 4), round(edge[place + 1], 4), counts[min(counts) + place])
        for place in range(len(edge) - 1)
    ]


def curve(ordered: Sequence[float]) -> list[tuple[float, float]]:
    """Quantiles of sorted latencies, up to the one that ten of them lie above: beyond it is chance."""
    found = [(q, percentile(ordered, q)) for q in _CURVE if len(ordered) * (1 - q) >= min(10, len(ordered) / 2)]
    return [(q, round(value * _MILLISECONDS, 3)) for q, value in found if value is not None]


def batch_share(sizes: Iterable[int]) -> dict[int, float]:
    """Batch size to its share of the batches. A batch of n is told n times, so each counts 1/n; 0 was in none."""
    told = Counter(size for size in sizes if size)
    batches = {size: count / size for size, count in sorted(told.items())}
    whole = sum(batches.values())
    return {size: round(count / whole, 4) for size, count in batches.items()}


def _bins(record: Record, latencies: Sequence[float], duration: float, width: float) -> list[Bin]:
    number = math.ceil(round(duration / width, 6))
    arrived = _count(record.arrived, width, number)
    failed = {code: _count(times, width, number) for code, times in sorted(record.failed.items())}
    within: list[list[float]] = [[] for _ in range(number)]
    for finished, latency in zip(record.finished, latencies, strict=True):
        if finished < number * width:
            within[int(finished / width)].append(latency)
    return [_bin(place, width, duration, arrived, failed, sorted(within[place])) for place in range(number)]


def _bin(
    place: int,
    width: float,
    duration: float,
    arrived: Sequence[int],
    failed: Mapping[str, Sequence[int]],
    ordered: Sequence[float],
) -> Bin:
    seconds = min(width, duration - place * width)  # the last one may be shorter
    return Bin(
        begin=round(place * width, 3),
        answers_per_s=round(arrived[place] / seconds, 2),
        errors_per_s={code: round(counts[place] / seconds, 2) for code, counts in failed.items()},
        p50_ms=milliseconds(percentile(ordered, 0.50)),
        p99_ms=milliseconds(percentile(ordered, 0.99)),
    )


def _count(times: Iterable[float], width: float, number: int) -> list[int]:
    counts = [0] * number
    for time in times:
        if time < number * width:
            counts[int(time / width)] += 1
    return counts


def _stages(record: Record, latencies: Sequence[float]) -> list[Stage]:
    if not record.batch_sizes:  # a pipeline's answers have none: its steps tell
        return []
    columns: dict[str, Sequence[float]] = {stage: record.stage_ms[stage] for stage in STAGES}
    told = map(sum, zip(*columns.values(), strict=True))
    rest = [max(latency * _MILLISECONDS - known, 0.0) for latency, known in zip(latencies, told, strict=True)]
    return [_stage(name, sorted(values)) for name, values in {**columns, REST: rest}.items()]


def _stage(name: str, ordered: Sequence[float]) -> Stage:
    p50, p99 = percentile(ordered, 0.50), percentile(ordered, 0.99)
    return Stage(name, round(sum(ordered) / len(ordered), 3), round(p50 or 0.0, 3), round(p99 or 0.0, 3))
