"""What a service's stages cost, by the answers that it gave: the part of a simulation that is measured.

The answers are best those of callers who wait for each other's, at several concurrencies: then batches of many sizes
come, and the fit knows nothing of the arrivals that it is judged by. All times are seconds.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.errors import ConfigurationError
from shoal.simulate.costs import MeasuredCosts
from shoal.simulate.spreads import Empirical

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PARTS = 100
"""Of a distribution: the slowest hundredth is a part of its own."""
FEWEST = 3
"""Answers of a batch size by which its time is known."""


class Stages(NamedTuple):
    """Where the time of one answer went."""

    latency: float
    queue: float
    fetch: float
    decode: float
    compute: float
    """Of its batch."""
    batch_size: int
    alone: bool = True
    """Whether hardly any other call was in flight, so that what no stage tells is way and no waiting."""

    @property
    def way(self) -> float:
        """What no stage tells: client, router and batcher, and the way between them, there and back."""
        return self.latency - self.queue - self.fetch - self.decode - self.compute


@dataclass(frozen=True, slots=True)
class Fit:
    """What a model's requests cost."""

    costs: MeasuredCosts
    jitter: Empirical
    """By how many times a batch takes longer than the mean of its size."""
    prepare: Empirical
    """Fetch and decode."""
    way: float
    """There and back, all of it."""
    answers: Mapping[int, int]
    """By batch size, those that it rests on."""

    def figures(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "way_ms": _milliseconds(self.way),
            "batch_ms": {
                str(size): _milliseconds(of) for size, of in zip(self.costs.sizes, self.costs.times, strict=True)
            },
            "jitter": [round(value, 5) for value in self.jitter.bounds],
            "prepare_ms": [_milliseconds(value) for value in self.prepare.bounds],
            "instances": len(self.costs.speeds),
            "answers": {str(size): number for size, number in self.answers.items()},
        }

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Fit:
        """Reads what ``figures`` wrote."""
        batches = {int(size): of / 1000 for size, of in told["batch_ms"].items()}
        return cls(
            costs=MeasuredCosts(tuple(batches), tuple(batches.values()), _speeds(told.get("instances", 1))),
            jitter=Empirical.of_samples(told["jitter"]),
            prepare=Empirical.of_samples([value / 1000 for value in told["prepare_ms"]]),
            way=told["way_ms"] / 1000,
            answers={int(size): number for size, number in told["answers"].items()},
        )


def fit(answers: Iterable[Stages], instances: int = 1) -> Fit:
    """The costs of one model, of which so many batches execute at once.

    Raises:
        ConfigurationError: there are no answers to calls that were alone, or too few of every batch size.
    """
    told = list(answers)
    times: defaultdict[int, list[float]] = defaultdict(list)
    for one in told:
        times[one.batch_size].append(one.compute)
    known = {size: fmean(of) for size, of in sorted(times.items()) if len(of) >= FEWEST}
    alone = [one.way for one in told if one.alone]
    if not known or not alone:
        raise ConfigurationError(f"{len(told)} answers, {len(alone)} of lone calls: too few to fit costs to")
    return Fit(
        costs=MeasuredCosts(tuple(known), tuple(known.values()), _speeds(instances)),
        jitter=_spread(time / mean if mean else 1.0 for size, mean in known.items() for time in times[size]),
        prepare=_spread(one.fetch + one.decode for one in told),
        way=max(0.0, median(alone)),
        answers={size: len(times[size]) for size in known},
    )


def _speeds(instances: int) -> tuple[float, ...]:
    """The times were measured with others beside: so none slows another one further."""
    return tuple(float(executing) for executing in range(1, instances + 1))


def _spread(values: Iterable[float]) -> Empirical:
    """By the means of at most ``PARTS`` equal parts."""
    ordered = sorted(values)
    parts = min(PARTS, len(ordered))
    bounds = [len(ordered) * part // parts for part in range(parts + 1)]
    return Empirical.of_samples([fmean(ordered[begin:end]) for begin, end in pairwise(bounds)])


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 4)
