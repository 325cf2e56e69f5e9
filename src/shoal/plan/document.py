"""The plan file: models, their load, the hardware, prices. Units are in the names; nothing is guessed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, field_validator, model_validator

from shoal.plan.tuning import PROCESS_IMAGES_PER_S
from shoal.service import read_section
from shoal.service.section import Name, Section

if TYPE_CHECKING:
    from pathlib import Path

HOURS = 24
_LONGEST_MS = 60_000
_SHORTEST_BATCH_MS = 0.01
_SHORTEST_OBJECTIVE_MS = 0.5

Rate = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
"""Pictures a second."""
Size = Annotated[int, Field(ge=1, le=65_536)]


def _day(rates: list[float] | None) -> list[float] | None:
    if rates is None:
        return None
    if len(rates) != HOURS:
        raise ValueError(f"has {len(rates)} numbers; expected {HOURS}, a rate for each hour of the day from 0:00 on")
    if not any(rates):
        raise ValueError("has no hour with load; expected a rate above 0 in one of them")
    return rates


class PlannedModel(Section):
    """A model: what its batches take, and what is promised of it."""

    profile: str | None = None
    """What ``shoal profile`` wrote, a path from the plan file's folder."""
    batch_ms: dict[Size, float] | None = None
    """In place of a profile: what a batch takes an idle GPU, by its size."""
    speed: dict[Size, Annotated[float, Field(gt=0, le=1000)]] = Field(default_factory=dict)
    """With ``batch_ms``: work done in a second with so many batches at once on a GPU, over that of one alone."""
    memory_gib: float = Field(gt=0, le=10_000, allow_inf_nan=False)
    """GPU memory of one replica: weights, and buffers of all batches that execute at once."""
    latency_objective_ms: float = Field(le=3_600_000, allow_inf_nan=False)
    """Within how long 99 of 100 requests are to be answered."""
    per_s: Rate | None = None
    """A constant load."""
    by_hour: list[Rate] | None = None
    """In place of ``per_s``: the load in each hour of the day, 24 numbers."""

    @field_validator("batch_ms")
    @classmethod
    def _milliseconds(cls, times: dict[int, float] | None) -> dict[int, float] | None:
        for size, time in (times or {}).items():
            if not time > 0:
                raise ValueError(f"{size}: {time:g}: expected more than 0 ms")
            if time > _LONGEST_MS:
                raise ValueError(f"{size}: {time:g} ms is over a minute; was it meant in microseconds?")
            if time < _SHORTEST_BATCH_MS:
                raise ValueError(
                    f"{size}: {time:g} ms is less than any GPU needs; was it meant in seconds? That is "
                    f"{1000 * time:g} ms"
                )
        if times is not None and not times:
            raise ValueError("is empty; expected the milliseconds of one size of batch or more, such as {1: 2.5, 8: 3}")
        return times

    @field_validator("speed")
    @classmethod
    def _of_one_alone(cls, speed: dict[int, float]) -> dict[int, float]:
        if speed.get(1, 1.0) != 1:
            raise ValueError(f"1: {speed[1]:g}: one batch alone has speed 1; the others are over that")
        if any(value > at_once for at_once, value in speed.items()):
            raise ValueError(
                "no more than n batches' work is done in the time of one: expected at most n for n at once"
            )
        return speed

    @field_validator("latency_objective_ms")
    @classmethod
    def _no_seconds(cls, objective: float) -> float:
        if objective < _SHORTEST_OBJECTIVE_MS:
            hint = f"; was it meant in seconds? That is {1000 * objective:g} ms" if objective > 0 else ""
            raise ValueError(f"{objective:g} ms is shorter than any way through a network{hint}")
        return objective

    _a_day = field_validator("by_hour")(_day)

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if (self.profile is None) == (self.batch_ms is None):
            raise ValueError("expected one of profile and batch_ms")
        if self.profile is not None and self.speed:
            raise ValueError("speed goes with batch_ms; a profile has its own, of its numbers in flight")
        if self.per_s is not None and self.by_hour is not None:
            raise ValueError("expected one of per_s and by_hour")
        return self


class SharedLoad(Section):
    """A load of all models together, and how it grows."""

    total_per_s: Rate | None = None
    by_hour: list[Rate] | None = None
    """In place of ``total_per_s``: of each hour of the day, 24 numbers."""
    mix: dict[Name, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """The share of each model; together 1."""
    growth_per_month: float = Field(default=0.0, gt=-1, le=1)
    """0.1 is 10 % more each month."""
    months: float = Field(default=0.0, ge=0, le=120)
    """For how long the plan has to last."""

    _a_day = field_validator("by_hour")(_day)

    @model_validator(mode="after")
    def _total_and_mix(self) -> Self:
        if self.total_per_s is not None and self.by_hour is not None:
            raise ValueError("expected one of total_per_s and by_hour")
        total = self.total_per_s is not None or self.by_hour is not None
        if total != bool(self.mix):
            raise ValueError("mix and one of total_per_s and by_hour go together")
        if self.mix and abs(sum(self.mix.values()) - 1) > 1e-6:
            raise ValueError(f"mix: the shares are {sum(self.mix.values()):g} together; expected 1")
        return self


class Hardware(Section):
    """What there is, or what is asked for."""

    servers: int | None = Field(default=None, ge=1, le=100_000)
    gpus_per_server: int = Field(default=1, ge=1, le=64)
    gpu_memory_gib: float = Field(gt=0, le=10_000, allow_inf_nan=False)
    cores_per_server: int | None = Field(default=None, ge=1, le=10_000)
    how_many: bool = False
    """Whether the number of servers is the question."""

    @model_validator(mode="after")
    def _known_or_asked(self) -> Self:
        if (self.servers is None) != self.how_many:
            raise ValueError("expected one of servers: NUMBER and how_many: true")
        return self

    @property
    def gpus(self) -> int | None:
        """All of them; None: that is the question."""
        return None if self.servers is None else self.servers * self.gpus_per_server


class Prices(Section):
    """In any currency."""

    per_gpu_hour: float | None = Field(default=None, gt=0, le=1e6)


class Sizing(Section):
    """What the way to the GPU costs; docs/gpu-decoding.md has measured figures."""

    cores_ms_per_image: float | None = Field(default=None, gt=0, le=10_000)
    """CPU time of a server for a picture: fetching, decoding, and all of the service that runs beside the GPU."""
    prepare_ms: float = Field(default=0.0, ge=0, le=60_000)
    """Time to fetch and decode a picture, which is part of its latency and takes the GPU none."""
    process_images_per_s: float = Field(default=PROCESS_IMAGES_PER_S, gt=0, le=1e6)
    """Pictures a second that one worker process carries."""


class PlanDocument(Section):
    """The whole plan file."""

    models: dict[Name, PlannedModel] = Field(min_length=1, max_length=64)
    load: SharedLoad = SharedLoad()
    hardware: Hardware
    prices: Prices = Prices()
    sizing: Sizing = Sizing()

    @model_validator(mode="after")
    def _each_has_a_load(self) -> Self:
        mix = self.load.mix
        if unknown := mix.keys() - self.models.keys():
            raise ValueError(f"load.mix: {', '.join(sorted(unknown))}: models has {', '.join(self.models)}")
        for name, model in self.models.items():
            own = model.per_s is not None or model.by_hour is not None
            if own == (name in mix):
                raise ValueError(f"models.{name}: expected one load: per_s, by_hour, or a share in load.mix")
        return self

    @model_validator(mode="after")
    def _each_fits_a_gpu(self) -> Self:
        memory = self.hardware.gpu_memory_gib
        for name, model in self.models.items():
            if model.memory_gib > memory:
                raise ValueError(
                    f"models.{name}.memory_gib: {model.memory_gib:g} GiB doesn't fit hardware.gpu_memory_gib "
                    f"({memory:g}): a GPU of {model.memory_gib:g} GiB or more would hold it, or fewer instances and "
                    "smaller batches of it"
                )
        return self

    def rates(self, name: str) -> tuple[float, ...]:
        """A model's pictures a second in each hour, after all growth."""
        model, shared = self.models[name], self.load
        factor = (1 + shared.growth_per_month) ** shared.months
        if name in shared.mix:
            factor *= shared.mix[name]
            day, constant = shared.by_hour, shared.total_per_s
        else:
            day, constant = model.by_hour, model.per_s
        return tuple(factor * rate for rate in day or [constant or 0.0] * HOURS)


def load(path: Path) -> PlanDocument:
    """Reads a plan file.

    Raises:
        ConfigurationError: naming file, line and key of each fault.
    """
    return read_section.load(PlanDocument, path)


def parse(text: str, source: str) -> PlanDocument:
    """Reads a plan file from ``text``; ``source`` names it in errors.

    Raises:
        ConfigurationError: as ``load``.
    """
    return read_section.parse(PlanDocument, text, source)
