"""What is simulated: models, where they are served, who asks for them, and what goes wrong. Times are seconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from shoal.runtime.priority import Priority

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping, Sequence

    from shoal.modelconfig.batching import BatchingSettings


class Spread(Protocol):
    """A distribution of times: a constant, a measured histogram."""

    def draw(self, source: random.Random) -> float:
        """One of them, in seconds."""
        ...


class EngineCosts(Protocol):
    """What a model's batches take a device."""

    def seconds(self, size: int) -> float:
        """Of a batch that has the device to itself."""
        ...

    def speed(self, executing: int) -> float:
        """Work done in a second while so many batches execute at once, over that of one alone: 1 for one."""
        ...


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """A model and what its pictures cost."""

    name: str
    settings: BatchingSettings
    """``instance_count`` is that of one replica."""
    costs: EngineCosts
    prepare: Spread
    """To fetch and decode a picture."""
    jitter: Spread | None = None
    """By how many times a batch takes longer than ``costs`` says, drawn for each; a number and no seconds."""


@dataclass(frozen=True, slots=True)
class SimulatedPool:
    """Replicas that serve the same models, a device each."""

    name: str
    models: tuple[str, ...]
    replicas: int
    replicas_of_a_server: int = 1
    """Replicas of all pools fill servers in order."""
    worker_processes: int = 1
    """That a replica consists of: they share its device and threads, and each has permits of its own."""
    decoding_threads: int = 0
    """Pictures that a replica prepares at once; 0: any number."""
    devices: str = "shared"
    """``shared``: batches of all models share a replica's device; ``own``: each model's instances have one each."""


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of one kind: each a time, counted from 0, in order."""

    model: str
    times: Iterable[float]
    owner: str = "anyone"
    priority: Priority = Priority.INTERACTIVE
    timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something goes wrong for a while."""

    kind: str
    """``replica`` (one ends), ``server`` and ``zone`` (all of their replicas end), ``slow_replica``, ``slow_store``."""
    at: float
    until: float
    target: str = ""
    """``POOL-NUMBER`` of a replica, the number of a server or zone; numbers count from 0."""
    factor: float = 1.0
    """By which a slow one takes longer."""
    detection_seconds: float = 0.0
    """Until the batcher knows. A process that ends closes its connections; a network that is gone is noticed late."""


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """Replicas of a pool follow its load, as an autoscaler of a cluster makes them."""

    pool: str
    smallest: int
    largest: int
    target_utilisation: float = 0.7
    scrape_seconds: float = 15.0
    start_seconds: float = 60.0
    """From the wish for a replica to its first permit: scheduling, start, loading models."""
    stabilisation_seconds: float = 300.0
    """For which a smaller number must have been right before replicas go."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run."""

    models: Sequence[SimulatedModel]
    pools: Sequence[SimulatedPool]
    loads: Sequence[Load]
    seconds: float
    """Of arrivals; what is in flight then is answered, too."""
    warm_up: float = 0.0
    """Requests that come before don't count."""
    path: float = 0.0005
    """From batcher to worker, and as long again back."""
    router: float = 0.0005
    """From client to batcher, and as long again back."""
    zones: int = 1
    """Servers are in each in turn: server 0 in zone 0, server 1 in zone 1."""
    late: Spread | None = None
    """Of the batcher's timers, and of its event loop."""
    balancing: str = "permits"
    """``permits``: Shoal's. ``round_robin``, ``least_load`` and ``random``: single requests to replicas that batch for
    themselves."""
    faults: Sequence[Fault] = ()
    autoscaling: Sequence[Autoscaling] = ()
    moment: float = 0.0
    """Not 0: what comes of requests is told by moments of so many seconds, too, in which they were sent."""
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Moment:
    """What came of the requests that were sent in one."""

    offered: int
    latencies: Sequence[float]
    """Of answers, in order of size."""


@dataclass(frozen=True, slots=True)
class ModelOutcome:
    """What came of a model's requests; ratios are of requests that came after the warm-up."""

    offered: int
    answered: int
    """In time."""
    refused: int
    late: int
    """Whose deadline passed first."""
    failed: int
    """Whose workers ended under them, or that found no worker."""
    throughput: float
    """Answers that came after the warm-up and before arrivals end, a second of that time."""
    mean_batch_size: float
    """Over batches that executed after the warm-up and before arrivals end."""
    latencies: Sequence[float]
    """Of answers, as the client sees them, in order of size."""
    owners: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Of each: offered, answered."""
    moments: Sequence[Moment] = ()
    """From 0 on, the warm-up's among them; see ``Scenario.moment``."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a scenario."""

    models: Mapping[str, ModelOutcome]
    utilisation: Mapping[str, float]
    """Share of the time from the warm-up to the end of arrivals for which a pool's devices were busy, in the mean of
    the replicas that were there."""
    replica_seconds: Mapping[str, float]
    """By pool, of the same time."""
    events: int
    """That the simulator went through."""
