"""A few parts of a service, simulated for what all of it would come to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, variance
from typing import TYPE_CHECKING, Final

from shoal.errors import ConfigurationError
from shoal.simulate.check import check as check_scenario
from shoal.simulate.judge import AIMS, Figures
from shoal.simulate.latencies import Latencies
from shoal.simulate.parts import check, part, pieces
from shoal.simulate.scenario import ModelOutcome, Outcome
from shoal.simulate.service import simulate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from fractions import Fraction

    from shoal.simulate.scenario import Scenario

PARTS: Final = 4
"""Where nothing else is said."""
CONFIDENCE: Final = 0.95
_STUDENT: Final = (12.706, 4.303, 3.182, 2.776, 2.571)
"""Two-sided, of 1 to 5 degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is said of a model."""

    figures: Figures
    """Of the whole."""
    half: Mapping[str, float | None]
    """By figure: half of the interval around it. That of chance holds the mean with a probability of ``CONFIDENCE``, if
    parts count as independent runs (Law, Simulation Modeling and Analysis, 9.4.1); what is not known about the size is
    added."""
    sizes: Sequence[Figures]
    """Of parts of the share, of half and of a quarter of it; throughput is that of the whole. One: there are no such
    parts, and what size does is in no interval."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What comes of a service, by some of its parts."""

    outcome: Outcome
    """Of all of it, by the parts alone: counts are those of the whole, latencies the parts' own."""
    share: Fraction
    """Of a part."""
    parts: int
    models: Mapping[str, Estimate]


def sample(scenario: Scenario, share: Fraction, parts: int = PARTS) -> Sample:
    """Simulates so many parts, and as many of half and a quarter of the size, each for the whole time.

    Args:
        scenario: All of it.
        share: Of it, in a part.
        parts: How many of each size.

    Raises:
        ConfigurationError: it makes no sense, or has no such parts; names what.
    """
    check_scenario(scenario)
    check(scenario, share)
    if parts < 2 or parts * share > 1:
        raise ConfigurationError(f"{parts} parts of {share}: expected 2 or more, and no more than all of it together")
    runs = [simulate(part(scenario, share, number)) for number in range(parts)]
    sizes = [_figures(runs, share)]
    for each in (share / 2, share / 4) if (pieces(scenario) * share).numerator % 4 == 0 else ():
        first = parts * len(sizes)  # other chance
        sizes.append(_figures([simulate(part(scenario, each, first + number)) for number in range(parts)], each))
    largest = {model.name: model.settings.max_batch_size for model in scenario.models}
    models = {name: _estimate([of[name] for of in sizes], share, largest[name]) for name in sizes[0]}
    return Sample(_together(runs, share), share, parts, models)


def _figures(runs: Sequence[Outcome], share: Fraction) -> dict[str, list[Figures]]:
    """Of each model, what each part says of the whole."""
    found: dict[str, list[Figures]] = {}
    for run in runs:
        for name, model in run.models.items():
            one = Figures.calculated(model)
            found.setdefault(name, []).append(replace(one, throughput=one.throughput / float(share)))
    return found


def _estimate(sizes: Sequence[Sequence[Figures]], share: Fraction, largest: int) -> Estimate:
    found: dict[str, float | None] = {}
    half: dict[str, float | None] = {}
    for name in AIMS:
        values = [each for of in sizes if (each := _each(of, name)) is not None]
        if not values or len(values) < len(sizes):
            found[name] = half[name] = None
        elif len(values) == 1:
            found[name], half[name] = fmean(values[0]), _chance(len(values[0]), _of_mean(values[0]))
        else:
            found[name], half[name] = _extrapolated(values, float(share))
    figures = _checked(found)
    figures = replace(figures, mean_batch_size=min(figures.mean_batch_size, largest))
    return Estimate(figures, half, [_mean(of) for of in sizes])


def _extrapolated(sizes: Sequence[Sequence[float]], share: float) -> tuple[float, float]:
    """A figure of the whole, and half of its interval, by its values in parts of the share, of half and a quarter.

    What size does to a figure sinks about in proportion to it: so what parts differ by from those of half their size,
    the whole differs by from the parts, but for its own share (Richardson's extrapolation of first order). How far that
    holds is told by the same from the next smaller sizes: their difference counts as error. Where it is the larger one,
    as where batches begin to be full, the parts' own figure is nearer.
    """
    whole, half, quarter = (fmean(values) for values in sizes)
    more = 1 - share
    step = more * (whole - half)
    error = abs(whole + step - half - (1 - share / 2) * (half - quarter))
    chance = _chance(len(sizes[0]), (1 + more) ** 2 * _of_mean(sizes[0]) + more**2 * _of_mean(sizes[1]))
    if error > abs(step):
        return whole, chance + error + abs(step)
    return whole + step, chance + error


def _chance(parts: int, of_mean: float) -> float:
    return student(parts - 1) * math.sqrt(of_mean)


def _of_mean(values: Sequence[float]) -> float:
    """The variance of their mean."""
    return variance(values) / len(values)


def _each(parts: Sequence[Figures], name: str) -> list[float] | None:
    """None: one has none, or there are no parts."""
    found = [value for one in parts if (value := getattr(one, name)) is not None]
    return found if found and len(found) == len(parts) else None


def _mean(parts: Sequence[Figures]) -> Figures:
    found = {name: _each(parts, name) for name in AIMS}
    return _checked({name: fmean(each) if each else None for name, each in found.items()})


def _checked(found: Mapping[str, float | None]) -> Figures:
    """None is negative, and no share more than 1."""
    throughput, size, share = (
        max(0.0, found[name] or 0.0) for name in ("throughput", "mean_batch_size", "refused_share")
    )
    p50, p95, p99 = (None if (value := found[name]) is None else max(0.0, value) for name in ("p50", "p95", "p99"))
    return Figures(throughput, size, p50, p95, p99, min(1.0, share))


def student(freedom: int) -> float:
    """Student's t for ``CONFIDENCE``, two-sided; to a hundredth (Abramowitz and Stegun, 26.7.5)."""
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


def _together(runs: Sequence[Outcome], share: Fraction) -> Outcome:
    """What all of it comes to."""
    seconds = {pool: fmean(run.replica_seconds[pool] for run in runs) / float(share) for pool in runs[0].utilisation}
    used = {pool: fmean(run.utilisation[pool] for run in runs) for pool in runs[0].utilisation}
    models = {name: _model([run.models[name] for run in runs], share) for name in runs[0].models}
    return Outcome(models, used, seconds, sum(run.events for run in runs))


def _model(parts: Sequence[ModelOutcome], share: Fraction) -> ModelOutcome:
    def whole(counts: Iterable[int]) -> int:
        return round(sum(counts) / len(parts) / share)

    latencies = Latencies()
    for one in parts:
        latencies.extend(one.latencies)
    owners = {owner for one in parts for owner in one.owners}
    return ModelOutcome(
        offered=whole(one.offered for one in parts),
        answered=whole(one.answered for one in parts),
        refused=whole(one.refused for one in parts),
        late=whole(one.late for one in parts),
        failed=whole(one.failed for one in parts),
        throughput=fmean(one.throughput for one in parts) / float(share),
        mean_batch_size=fmean(one.mean_batch_size for one in parts),
        latencies=latencies.in_order(),
        owners={
            owner: (
                whole(one.owners.get(owner, (0, 0))[0] for one in parts),
                whole(one.owners.get(owner, (0, 0))[1] for one in parts),
            )
            for owner in sorted(owners)
        },
    )
