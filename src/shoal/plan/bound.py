"""The arithmetic lower bound: load over the best rate within the objective, as if requests came evenly spaced.

A batch of b pictures is worth its wait only if the first of them is answered in time. It waits for the b-1 that come
after it, (b-1)/λ at λ pictures a second, and then for its batch: l(b)·k/s(k), where k batches execute at once at the
speed s(k). So the best rate of a GPU is the highest b·s(k)/l(b) with

    prepare + (b-1)/λ + l(b)·k/s(k) ≤ objective

λ is what the batcher sees: the model's whole load where batches form before the load balancer, its nth part where each
of n replicas batches for itself. That gathering costs (b-1)/λ and shrinks with the load a batcher sees is the reasoning
of Nexus (Shen et al., SOSP 2019) and Symphony (arXiv 2308.07470); theirs adds waiting for a GPU, ours doesn't, because
a bound may leave out every wait that a lucky request doesn't have. Real arrivals come in bursts, so more is needed:
that is what the simulation says.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from shoal.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shoal.simulate.costs import MeasuredCosts
    from shoal.simulate.scenario import Spread

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class PlannedLoad:
    """A model as the arithmetic sees it."""

    name: str
    costs: MeasuredCosts
    memory_gib: float
    objective: float
    """Seconds."""
    prepare: float
    """Seconds that a picture needs before its batch may begin; where that varies, half of them need less."""
    rates: tuple[float, ...]
    """Pictures a second in each hour."""
    preparing: Spread | None = None
    """How ``prepare`` varies."""

    @property
    def peak(self) -> float:
        """Of the heaviest hour."""
        return max(self.rates)


@dataclass(frozen=True, slots=True)
class Best:
    """How a GPU serves most pictures of a model a second within its objective."""

    batch: int
    at_once: int
    per_s: float


def best(model: PlannedLoad, seen: float) -> Best | None:
    """The best of all sizes and numbers at once, where a batcher sees so many pictures a second; None: none is in time.

    Among equal rates the smaller batch and the fewer at once win.
    """
    found: Best | None = None
    for at_once in range(1, len(model.costs.speeds) + 1):
        share = at_once / model.costs.speed(at_once)
        for size in range(1, model.costs.sizes[-1] + 1):
            gather = (size - 1) / seen if seen else (math.inf if size > 1 else 0.0)
            seconds = model.costs.seconds(size)
            if model.prepare + gather + seconds * share > model.objective + _ROUNDING:
                continue
            rate = size * model.costs.speed(at_once) / seconds
            if found is None or rate > found.per_s * (1 + _ROUNDING):
                found = Best(size, at_once, rate)
    return found


def check(model: PlannedLoad) -> None:
    """Raises ConfigurationError where one picture alone takes longer than the objective: no hardware helps."""
    least = model.prepare + model.costs.seconds(1)
    if least > model.objective:
        raise ConfigurationError(
            f"models.{model.name}.latency_objective_ms: {1000 * model.objective:g} ms is below the time of a picture: "
            f"{1000 * model.prepare:g} ms to prepare it and {1000 * model.costs.seconds(1):g} ms for its batch; "
            f"expected {1000 * least:g} or more"
        )


def gpus(models: Iterable[PlannedLoad], hour: int) -> float:
    """What the load of an hour fills, where batches form before the load balancer; not rounded."""
    return sum(_gpus(model, model.rates[hour]) for model in models)


def gpus_apart(models: Iterable[PlannedLoad], hour: int) -> int:
    """GPUs of dedicated pools: each model's rounded up."""
    return sum(math.ceil(_gpus(model, model.rates[hour]) - _ROUNDING) for model in models)


def gpus_inside(models: Sequence[PlannedLoad], hour: int) -> int:
    """GPUs where each replica batches for itself, and so sees its share of each load: the least n that n can carry."""
    least = max(1, math.ceil(gpus(models, hour) - _ROUNDING))
    return next(number for number in count(least) if _carry(models, hour, number))


def peak_hour(models: Sequence[PlannedLoad]) -> int:
    """The first hour that fills most GPUs."""
    hours = range(len(models[0].rates))
    return max(hours, key=lambda hour: (gpus(models, hour), -hour))


def _gpus(model: PlannedLoad, rate: float) -> float:
    found = best(model, rate)
    return math.inf if found is None else rate / found.per_s


def _carry(models: Sequence[PlannedLoad], hour: int, replicas: int) -> bool:
    filled = 0.0
    for model in models:
        if rate := model.rates[hour]:
            found = best(model, rate / replicas)
            filled += math.inf if found is None else rate / replicas / found.per_s
    return filled <= 1 + _ROUNDING
