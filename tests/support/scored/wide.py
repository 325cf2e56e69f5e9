"""Scenarios with more than one queue and its workers: played by the simulator of whole services."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING

from shoal.arrivals.processes import poisson
from shoal.modelconfig.batching import BatchingSettings
from shoal.simulate.scenario import Fault, Load, Scenario, SimulatedModel, SimulatedPool
from shoal.simulate.service import simulate
from shoal.simulate.spreads import Constant, Uniform
from support.scored.scenarios import CURVE, FULL, LARGEST, NOISE, PATH, PREPARE, RATE, WARM_UP
from support.scored.score import Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shoal.simulate.scenario import ModelOutcome

WORKERS = 4
SECONDS = 12.0


@dataclass(frozen=True)
class Service:
    """A scenario."""

    loads: Mapping[tuple[str, str], float]
    """Of each model and owner, as a share of what all workers carry."""
    timeout: float = 1.0
    faults: Sequence[Fault] = ()
    worth: float = WORKERS
    """Workers that are always there and make as much."""
    settings: BatchingSettings = field(default_factory=lambda: BatchingSettings(max_batch_size=LARGEST))

    def play(self) -> Run:
        """Once; each time the same."""
        return self._run(simulate(self._scenario()).models)

    def _scenario(self) -> Scenario:
        models = sorted({model for model, _ in self.loads})
        return Scenario(
            models=[
                SimulatedModel(name, self.settings, CURVE, Constant(PREPARE), Uniform(1.0, 1.0 + NOISE))
                for name in models
            ],
            pools=[SimulatedPool("default", tuple(models), WORKERS)],
            loads=[self._load(*who, share) for who, share in self.loads.items()],
            seconds=SECONDS,
            warm_up=WARM_UP,
            path=PATH,
            router=0.0,
            faults=self.faults,
        )

    def _load(self, model: str, owner: str, share: float) -> Load:
        times = poisson(share * WORKERS * RATE, random.Random(f"{model} {owner}"))  # no secret
        return Load(model, list(takewhile(lambda time: time < SECONDS, times)), owner, timeout=self.timeout)

    def _run(self, models: Mapping[str, ModelOutcome]) -> Run:
        owners = {f"{name} {owner}": of for name, each in models.items() for owner, of in each.owners.items()}
        batches = sum(each.answered / each.mean_batch_size for each in models.values())
        return Run(
            asked={owner: offered for owner, (offered, _) in owners.items()},
            in_time={owner: answered for owner, (_, answered) in owners.items()},
            possible=self.worth * RATE * (SECONDS - WARM_UP),
            latencies={name: each.latencies for name, each in models.items()},
            bound=2 * PATH + PREPARE + 2 * FULL * len(models),  # they share the devices
            mean_batch_size=sum(each.answered for each in models.values()) / batches,
            largest_batch_size=LARGEST,
        )


SERVICES = {
    "two models": Service({("small", "a"): 0.15, ("large", "a"): 0.25, ("large", "b"): 0.25}),
    "dying worker": Service(
        {("one", "a"): 0.3, ("one", "b"): 0.3},
        faults=[Fault("replica", at=5.0, until=8.0, target="default-1", detection_seconds=0.2)],
        worth=WORKERS - 3.0 / (SECONDS - WARM_UP),
    ),
    "slow store": Service(
        {("one", "a"): 0.3, ("one", "b"): 0.3}, faults=[Fault("slow_store", at=5.0, until=8.0, factor=20.0)]
    ),
}
