"""A placement under virtual time: the real policy, at the heaviest hour of each pool, with or without a server lost."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from shoal.arrivals.processes import poisson, until
from shoal.plan import tuning
from shoal.runtime.percentile import percentile
from shoal.simulate.scenario import Fault, Load, Scenario, SimulatedModel, SimulatedPool
from shoal.simulate.service import simulate
from shoal.simulate.spreads import Constant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shoal.plan.bound import PlannedLoad
    from shoal.plan.placements import Placement
    from shoal.plan.pool import PlannedPool
    from shoal.simulate.scenario import Outcome

REQUESTS = 15_000
"""Of all models together in a run, without the warm-up: 150 of them are beyond p99."""
_LEAST_OF_A_MODEL = 1_500
_RAREST = 3
"""A run is so many times longer at most, for the sake of the rarest model."""
_LEAST_OBJECTIVES = 20
"""A run lasts for so many objectives at least, or a queue that grows isn't seen."""
_QUICK = 4
_LONG = 4
_WARM_UP = 0.25
"""Of the time that counts."""
_LOST_AFTER = 0.2
"""Of the warm-up."""
_TIMEOUT_OBJECTIVES = 10
MOST_LOST = 0.01
"""Share of a model's requests that may be refused or late: p99 is of those answered, and says nothing of others."""


@dataclass(frozen=True, slots=True)
class ModelTrial:
    """What came of a model."""

    name: str
    p99_ms: float | None
    """Of answers; None: there was none."""
    lost: float
    """Share that had no answer: refused, or not before ten times its objective."""
    mean_batch: float
    objective_ms: float

    @property
    def in_time(self) -> bool:
        """Whether its objective is kept."""
        return self.p99_ms is not None and self.p99_ms <= self.objective_ms and self.lost <= MOST_LOST


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a placement."""

    placement: Placement
    """As it was tried: its pools' ``tuning`` tells how their models were served."""
    gpus: Mapping[str, int]
    """By pool."""
    models: tuple[ModelTrial, ...]
    utilisation: Mapping[str, float]
    """By pool."""

    @property
    def in_time(self) -> bool:
        """Whether all objectives are kept."""
        return all(model.in_time for model in self.models)

    @property
    def total(self) -> int:
        """GPUs of all pools."""
        return sum(self.gpus.values())

    @property
    def mean_utilisation(self) -> float:
        """Of all GPUs."""
        return sum(self.utilisation[name] * number for name, number in self.gpus.items()) / self.total


@dataclass(frozen=True, slots=True)
class Bench:
    """How trials are made."""

    gpus_per_server: int = 1
    seed: int = 1
    requests: int = REQUESTS
    objectives: int = _LEAST_OBJECTIVES
    process_images_per_s: float = tuning.PROCESS_IMAGES_PER_S
    run: Callable[[Scenario], Outcome] = simulate

    @property
    def quick(self) -> Bench:
        """With a quarter of the requests and the time, to find out where to look."""
        return replace(self, requests=self.requests // _QUICK, objectives=self.objectives // _QUICK)

    @property
    def long(self) -> Bench:
        """Of other requests and four times as long: a queue that grows slowly is seen, and luck isn't enough."""
        return replace(self, seed=self.seed + 1, requests=self.requests * _LONG, objectives=self.objectives * _LONG)

    def trial(
        self,
        placement: Placement,
        gpus: Mapping[str, int],
        *,
        hours: Mapping[str, int] | None = None,
        lose_server: bool = False,
    ) -> Trial:
        """Runs it.

        Args:
            placement: What is tried.
            gpus: Of each pool.
            hours: The hour whose load each pool gets; by default its own heaviest.
            lose_server: Whether a server of each pool ends in the warm-up, and stays away. Pools don't feel each other,
                so this tells of each how it serves without a server.
        """
        at = {pool.name: (hours or {}).get(pool.name, pool.peak_hour) for pool in placement.pools}
        scenario = self.scenario(placement, gpus, at)
        if lose_server:
            scenario = replace(
                scenario, faults=self.lost_servers(placement, gpus, _LOST_AFTER * scenario.warm_up, scenario.seconds)
            )
        return _read(placement, gpus, at, self.run(scenario))

    def scenario(
        self,
        placement: Placement,
        gpus: Mapping[str, int],
        hours: Mapping[str, int],
        *,
        seconds: float | None = None,
    ) -> Scenario:
        """What is simulated; ``seconds`` in all, or a warm-up and as many more as the requests need."""
        return _scenario(placement, gpus, hours, self, seconds)

    def lost_servers(
        self, placement: Placement, gpus: Mapping[str, int], at: float, seconds: float, detection_seconds: float = 0.0
    ) -> tuple[Fault, ...]:
        """A server of each pool ends then, and stays away for longer than the run's ``seconds``.

        It is the first one that a pool has for itself; of a pool without one, that of its first GPU.
        """
        lost, before, size = set(), 0, self.gpus_per_server
        for pool in placement.pools:
            own = -(-before // size)
            lost.add(own if own * size < before + gpus[pool.name] else before // size)
            before += gpus[pool.name]
        return tuple(
            Fault("server", at, 10 * seconds, str(number), detection_seconds=detection_seconds)
            for number in sorted(lost)
        )


def _scenario(
    placement: Placement, gpus: Mapping[str, int], hours: Mapping[str, int], bench: Bench, lasting: float | None
) -> Scenario:
    rates = {model.name: model.rates[hours[pool.name]] for pool in placement.pools for model in pool.models}
    models = [model for pool in placement.pools for model in pool.models if rates[model.name] > 0]
    inside = placement.balancing != "permits"
    settings = {
        name: one
        for pool in placement.pools
        for name, one in tuning.settings(pool, gpus[pool.name] if inside else 1).items()
    }
    seconds = _seconds([rates[model.name] for model in models], models, bench)
    warm_up = 0.0 if lasting else _WARM_UP * seconds
    end = lasting or warm_up + seconds
    return Scenario(
        models=[
            SimulatedModel(model.name, settings[model.name], model.costs, model.preparing or Constant(model.prepare))
            for model in models
        ],
        pools=[_pool(pool, gpus[pool.name], rates, bench) for pool in placement.pools],
        loads=[
            Load(
                model.name,
                until(poisson(rates[model.name], random.Random(f"{bench.seed} {model.name}")), end),
                timeout=_TIMEOUT_OBJECTIVES * model.objective,
            )
            for model in models
        ],
        seconds=end,
        warm_up=warm_up,
        balancing=placement.balancing,
        seed=bench.seed,
    )


def _pool(pool: PlannedPool, gpus: int, rates: Mapping[str, float], bench: Bench) -> SimulatedPool:
    names = tuple(model.name for model in pool.models if rates[model.name] > 0)
    processes = tuning.worker_processes(pool, bench.process_images_per_s)
    return SimulatedPool(pool.name, names, gpus, bench.gpus_per_server, processes)


def _seconds(rates: Sequence[float], models: Sequence[PlannedLoad], bench: Bench) -> float:
    """That count: enough for the requests of all and of the rarest model, and for queues to grow."""
    usual = bench.requests / sum(rates)
    enough = max(usual, min(_LEAST_OF_A_MODEL / min(rates), _RAREST * usual))
    return max(enough, bench.objectives * max(model.objective for model in models))


def _read(placement: Placement, gpus: Mapping[str, int], hours: Mapping[str, int], outcome: Outcome) -> Trial:
    trials = []
    for pool in placement.pools:
        for model in pool.models:
            if model.rates[hours[pool.name]] == 0:
                continue
            came = outcome.models[model.name]
            p99 = percentile(came.latencies, 0.99)
            trials.append(
                ModelTrial(
                    model.name,
                    None if p99 is None else round(1000 * p99, 2),
                    1 - came.answered / came.offered if came.offered else 0.0,
                    round(came.mean_batch_size, 2),
                    1000 * model.objective,
                )
            )
    return Trial(placement, dict(gpus), tuple(trials), dict(outcome.utilisation))
