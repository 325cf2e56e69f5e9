"""The scenario file of ``shoal simulate``: models, pools, loads, faults. Units are in the names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from shoal.service import read_section
from shoal.service.section import Name, Seconds, Section
from shoal.service.spec import MOST_WORKER_PROCESSES

if TYPE_CHECKING:
    from pathlib import Path

Milliseconds = Annotated[float, Field(ge=0, le=3_600_000, allow_inf_nan=False)]
Moment = Annotated[float, Field(ge=0, le=10_000_000, allow_inf_nan=False)]
"""Seconds from the beginning."""
Size = Annotated[int, Field(ge=1, le=65_536)]


class Times(Section):
    """How long something takes: always the same, or a log-normal distribution through two percentiles."""

    ms: Milliseconds | None = None
    p50_ms: Milliseconds | None = None
    p99_ms: Milliseconds | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.ms is None) == (self.p50_ms is None) or (self.p50_ms is None) != (self.p99_ms is None):
            raise ValueError("expected ms, or p50_ms and p99_ms")
        if self.p50_ms is not None and self.p99_ms is not None and not 0 < self.p50_ms <= self.p99_ms:
            raise ValueError(f"p50_ms {self.p50_ms:g} and p99_ms {self.p99_ms:g}: expected 0 < p50_ms <= p99_ms")
        return self


class Batching(Section):
    """As in config.pbtxt and the service file, in the same words."""

    max_batch_size: Size = 1
    preferred_batch_size: list[Size] = Field(default_factory=list)
    max_queue_delay_microseconds: int = Field(default=0, ge=0)
    latency_objective_ms: float = Field(default=0.0, ge=0, le=3_600_000)
    """In place of the delay. 0: the delay holds."""
    max_queue_size: int = Field(default=0, ge=0)
    """0: as the batcher has it where a model names none."""
    instance_count: int = Field(default=1, ge=1, le=1024)
    """Batches that a replica executes at once."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.preferred_batch_size and max(self.preferred_batch_size) > self.max_batch_size:
            raise ValueError(
                f"preferred_batch_size {self.preferred_batch_size} goes over max_batch_size ({self.max_batch_size})"
            )
        if self.latency_objective_ms and self.max_queue_delay_microseconds:
            raise ValueError("latency_objective_ms and max_queue_delay_microseconds: name one of them")
        return self


class Model(Section):
    """A model: what its batches and its pictures cost."""

    profile: str | None = None
    """What ``shoal profile`` wrote, a path from the scenario file's folder."""
    profile_instances: int | None = Field(default=None, ge=1)
    """With ``profile``: the cells of so many instances count. None: batches in flight count as instances."""
    batch_ms: dict[Size, Annotated[float, Field(gt=0, le=60_000)]] | None = Field(default=None, min_length=1)
    """In place of a profile: what a batch takes an idle device, by its size. Between them lie straight lines."""
    speed: dict[Size, Annotated[float, Field(gt=0, le=1000)]] = Field(default_factory=dict)
    """With ``batch_ms``: work done in a second with so many batches at once on a device, over that of one alone."""
    measured_jitter: bool = False
    """With ``profile``: whether batches vary as its percentiles say."""
    prepare: Times = Times(ms=0.0)
    """What fetching and decoding a picture takes."""
    batching: Batching = Batching()

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if (self.profile is None) == (self.batch_ms is None):
            raise ValueError("expected one of profile and batch_ms")
        if self.profile is not None and self.speed:
            raise ValueError("speed goes with batch_ms; a profile has its own")
        if self.profile is None and (self.profile_instances or self.measured_jitter):
            raise ValueError("profile_instances and measured_jitter go with profile")
        if self.speed.get(1, 1.0) != 1:
            raise ValueError("speed of 1 is 1: the others are over that")
        if self.batch_ms is not None and self.batching.max_batch_size > max(self.batch_ms):
            raise ValueError(
                f"batch_ms ends at a batch of {max(self.batch_ms)}, and max_batch_size is "
                f"{self.batching.max_batch_size}: say what that takes"
            )
        return self


class Pool(Section):
    """Replicas that serve the same models, a device each."""

    models: list[Name] = Field(min_length=1)
    replicas: int = Field(ge=1, le=100_000)
    replicas_of_a_server: int = Field(default=1, ge=1, le=1024)
    worker_processes: int = Field(default=1, ge=1, le=MOST_WORKER_PROCESSES)
    """That a replica consists of: they share its device and threads, and each has permits of its own."""
    decoding_threads: int = Field(default=0, ge=0, le=100_000)
    """Pictures that a replica prepares at once. 0: any number."""
    devices: Literal["shared", "own"] = "shared"
    """``shared``: batches of all models share a replica's device. ``own``: each instance has one to itself."""


class Arrivals(Section):
    """Requests of one kind: a rate, 24 of them, or a recorded trace."""

    model: Name | None = None
    per_s: float | None = Field(default=None, gt=0, le=1e9, allow_inf_nan=False)
    by_hour: list[Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]] | None = Field(
        default=None, min_length=24, max_length=24
    )
    """Of each hour of the day from 0:00 on."""
    hour_seconds: float = Field(default=3600.0, gt=0, le=3600)
    """How long an hour takes: fewer than 3,600 play a day faster, at the same rates."""
    coefficient_of_variation: float = Field(default=1.0, ge=0, le=30)
    """Of the gaps between requests: 1 is a Poisson process, more comes in bursts."""
    trace: str | None = None
    """A CSV file with ``time,model,owner``, a path from the scenario file's folder."""
    owner: str = "anyone"
    priority: Literal["interactive", "bulk"] = "interactive"
    timeout_seconds: Seconds = 30.0

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if sum(each is not None for each in (self.per_s, self.by_hour, self.trace)) != 1:
            raise ValueError("expected one of per_s, by_hour and trace")
        if (self.trace is None) == (self.model is None):
            raise ValueError("expected model, but for a trace, which names its own")
        if self.by_hour is not None and not any(self.by_hour):
            raise ValueError("by_hour has no hour with load; expected a rate above 0 in one of them")
        return self


class FaultSection(Section):
    """Something goes wrong for a while."""

    kind: Literal["replica", "server", "zone", "slow_replica", "slow_store"]
    at: Moment
    until: Moment
    target: str = ""
    """``POOL-NUMBER`` of a replica, the number of a server or zone; numbers count from 0."""
    factor: float = Field(default=1.0, gt=0, le=1e6)
    detection_seconds: float = Field(default=0.0, ge=0, le=3600)


class Scaling(Section):
    """A pool's autoscaler."""

    smallest: int = Field(default=1, ge=1)
    largest: int = Field(ge=1, le=100_000)
    target_utilisation: float = Field(default=0.7, gt=0, le=1)
    scrape_seconds: Seconds = 15.0
    start_seconds: float = Field(default=60.0, ge=0, le=86_400)
    stabilisation_seconds: float = Field(default=300.0, ge=0, le=86_400)


class ScenarioFile(Section):
    """All of it."""

    seconds: Moment
    """Of arrivals; what is in flight then is answered, too."""
    warm_up_seconds: Moment = 0.0
    """Requests that come before don't count."""
    seed: int = 1
    balancing: Literal["permits", "round_robin", "least_load", "random"] = "permits"
    """``permits``: Shoal's. The others send single requests to replicas that batch for themselves."""
    path_ms: Milliseconds = 0.5
    """From batcher to worker, and as long again back."""
    router_ms: Milliseconds = 0.5
    """From client to batcher, and as long again back."""
    zones: int = Field(default=1, ge=1)
    models: dict[Name, Model] = Field(min_length=1)
    pools: dict[Name, Pool] = Field(min_length=1)
    loads: list[Arrivals] = Field(min_length=1)
    faults: list[FaultSection] = Field(default_factory=list)
    autoscaling: dict[Name, Scaling] = Field(default_factory=dict)
    """By pool."""


def load(path: Path) -> ScenarioFile:
    """Reads a scenario file.

    Raises:
        ConfigurationError: naming file, line and key of each fault.
    """
    return read_section.load(ScenarioFile, path)
